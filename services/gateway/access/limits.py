"""What a key may have in work at one gateway, and its tokens a minute, which all gateways count together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import Overloaded
from schemas.requests.keys import ApiKey
from services.gateway.access.budget import Budgets

SOON_S = 1.0


class KeyBudget:
    """The tokens a minute of one key."""

    def __init__(self, budgets: Budgets, key: ApiKey) -> None:
        self._budgets = budgets
        self._key = key

    async def check(self) -> None:
        """Raises Overloaded if they are used up."""
        await self._budgets.check(self._key)

    async def charge(self, tokens: int) -> None:
        """So many were used."""
        await self._budgets.charge(self._key, tokens)


class KeyUse:
    """What a key has in work."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._in_flight = 0

    def budget(self, key: ApiKey) -> KeyBudget | None:
        """Its tokens a minute, if they are limited."""
        return None if key.limits.tokens_per_minute is None else KeyBudget(self._budgets, key)

    @contextmanager
    def request(self, key: ApiKey, *, takes_tokens: bool) -> Iterator[KeyBudget | None]:
        """One request from its beginning to its end; it is served if there is nothing more to check, or once
        that was checked: of one that takes tokens. Raises Overloaded if the key has as many in work as it
        may."""
        most = key.limits.requests_in_flight
        if most is not None and self._in_flight >= most:
            raise Overloaded(
                f"this key has {self._in_flight} requests in work, and may have {most} at a time",
                retry_after_s=SOON_S,
            )
        self._in_flight += 1
        try:
            yield self.budget(key) if takes_tokens else None
        finally:
            self._in_flight -= 1
