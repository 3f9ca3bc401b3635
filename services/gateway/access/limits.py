"""What a key may have in work, and its tokens a minute, which all gateways count together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.requests.keys import ApiKey
from services.gateway.access.budget import Budgets
from services.gateway.access.places import KeyPlaces, Places


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


class KeyEntry:
    """What there is to check before a request of a key is served."""

    def __init__(self, places: KeyPlaces | None, most: int, budget: KeyBudget | None) -> None:
        self._places = places
        self._most = most
        self._budget = budget
        self._taken = False

    async def check(self) -> None:
        """Takes a place for the request. Raises Overloaded if the key has as many in work as it may, or its
        tokens are used up."""
        if self._places is not None:
            await self._places.take(self._most)
            self._taken = True
        if self._budget is not None:
            await self._budget.check()

    def leave(self) -> None:
        """The request has ended."""
        if self._places is not None and self._taken:
            self._places.leave()


class KeyUse:
    """What a key has in work."""

    def __init__(self, budgets: Budgets, places: Places) -> None:
        self._budgets = budgets
        self._places = places

    def budget(self, key: ApiKey) -> KeyBudget | None:
        """Its tokens a minute, if they are limited."""
        return None if key.limits.tokens_per_minute is None else KeyBudget(self._budgets, key)

    @contextmanager
    def request(self, key: ApiKey, *, takes_tokens: bool) -> Iterator[KeyEntry | None]:
        """One request from its beginning to its end; it is served if there is nothing to check, or once that
        was checked: its place among those in work, and, if it takes tokens, these."""
        most = key.limits.requests_in_flight
        budget = self.budget(key) if takes_tokens else None
        if most is None and budget is None:
            yield None
            return
        entry = KeyEntry(None if most is None else self._places.of(key.id), most or 0, budget)
        try:
            yield entry
        finally:
            entry.leave()
