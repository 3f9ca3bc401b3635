"""What a key may take, which all gateways count together: requests at a time, those of batch work among them,
requests a minute, tokens a minute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from schemas.requests.keys import ApiKey, KeyLimits
from schemas.requests.tenants import most_of_batch
from services.gateway.access.budget import Budgets
from services.gateway.access.places import ALL, BATCH, KeyPlaces, PlaceKind, Places
from services.gateway.access.rate import KeyRate, Rates


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
    """What there is to check before a request of a key is served: places of which it takes one each, with how
    many there are; the tokens that it used; and how many requests a minute it may ask."""

    def __init__(
        self,
        places: Sequence[tuple[KeyPlaces, int]],
        budget: KeyBudget | None,
        rate: tuple[KeyRate, int] | None,
    ) -> None:
        self._places = places
        self._budget = budget
        self._rate = rate
        self._taken: list[KeyPlaces] = []

    async def check(self) -> None:
        """Takes the places for the request, and counts it. Raises Overloaded if the key has as many in work
        as it may, its tokens are used up, or it has asked as often as it may; then it is not counted."""
        for places, most in self._places:
            await places.take(most)
            self._taken.append(places)
        if self._budget is not None:
            await self._budget.check()
        if self._rate is not None:
            rate, most = self._rate
            await rate.take(most)

    def leave(self) -> None:
        """The request has ended."""
        for places in self._taken:
            places.leave()


class KeyUse:
    """What a key uses."""

    def __init__(self, budgets: Budgets, places: Places, rates: Rates) -> None:
        self._budgets = budgets
        self._places = places
        self._rates = rates

    def budget(self, key: ApiKey) -> KeyBudget | None:
        """Its tokens a minute, if they are limited."""
        return None if key.limits.tokens_per_minute is None else KeyBudget(self._budgets, key)

    @contextmanager
    def request(self, key: ApiKey, *, takes_tokens: bool, batch: bool = False) -> Iterator[KeyEntry | None]:
        """One request from its beginning to its end; it is served if there is nothing to check, or once that
        was checked: its place among those in work, and, if it takes tokens, these, how often the key asks,
        and, of the class `batch`, its place in the queue."""
        most = key.limits.requests_per_minute
        rate = None if most is None or not takes_tokens else (self._rates.of(key.id), most)
        budget = self.budget(key) if takes_tokens else None
        kinds = _places(key.limits, batch=batch and takes_tokens)
        places = [(self._places.of(key.id, kind), most) for kind, most in kinds]
        if not places and budget is None and rate is None:
            yield None
            return
        entry = KeyEntry(places, budget, rate)
        try:
            yield entry
        finally:
            entry.leave()


def _places(limits: KeyLimits, *, batch: bool) -> Iterator[tuple[PlaceKind, int]]:
    """Which places a request needs, and how many of each there are."""
    if limits.requests_in_flight is not None:
        yield ALL, limits.requests_in_flight
    if batch and limits.batch_share is not None:
        yield BATCH, most_of_batch(limits.batch_share)
