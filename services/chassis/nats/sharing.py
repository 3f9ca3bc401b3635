"""What tenants share: places in which they wait, turns at something that does little at once, and the event
loop. Pure.

Whoever takes more than others finds an end of it; there is always room for another one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.errors import Overloaded

GREED = 7
"""A tenant may have so many times the places that are free: one alone seven eighths of all, two of them seven
fifteenths each. The last place is for one who has none."""

RETRY_AFTER_S = 1.0


class Places:
    """`limit` places, of which no tenant has all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many have a place."""
        return self._of.total()

    def take(self, tenant: str, most: int | None = None) -> bool:
        """Whether the tenant, which may have at most `most`, has one more place now, until `leave`."""
        if self.are_taken(tenant, most):
            return False
        self._of[tenant] += 1
        return True

    def are_taken(self, tenant: str, most: int | None = None) -> bool:
        """Whether there is no further place for the tenant, which may have at most `most`."""
        mine, free = self._of[tenant], self._limit - self.taken
        return mine >= GREED * free or bool(mine and free == 1) or (most is not None and mine >= most)

    def leave(self, tenant: str) -> None:
        """A place of the tenant is free again."""
        self._of[tenant] -= 1
        if not self._of[tenant]:
            del self._of[tenant]


class Turns:
    """`most` at a time for each tenant; further ones of the same tenant wait, in their order."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, asyncio.Semaphore] = {}
        self._here: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, tenant: str, patience_s: float | None = None) -> AsyncIterator[None]:
        """One turn of a tenant, from when it has come. Overloaded if it does not come within `patience_s`."""
        turns = self._of.setdefault(tenant, asyncio.Semaphore(self._most))
        self._here[tenant] += 1
        try:
            await _taken(turns, patience_s)
            try:
                yield
            finally:
                turns.release()
        finally:
            self._here[tenant] -= 1
            if not self._here[tenant]:
                del self._here[tenant], self._of[tenant]


async def _taken(turns: asyncio.Semaphore, patience_s: float | None) -> None:
    if patience_s is None or not turns.locked():
        await turns.acquire()
        return
    try:
        async with asyncio.timeout(patience_s):
            await turns.acquire()
    except TimeoutError as error:
        raise Overloaded(
            f"so much was asked at once that this had no turn within {patience_s:g} s: ask less at a time",
            retry_after_s=RETRY_AFTER_S,
        ) from error


class Rounds:
    """In one round of the event loop at most `most` pieces of work of a tenant begin; further ones of the
    same tenant wait, in their order. So who sends thousands at once delays those of others by a few."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def turn(self, tenant: str) -> None:
        """Returns when a piece of the tenant's work may begin."""
        if tenant not in self._waiting and self._begun[tenant] < self._most:
            self._begin(tenant)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        await turn

    def _begin(self, tenant: str) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next)
        self._begun[tenant] += 1

    def _next(self) -> None:
        """The next round. Who was cancelled while it waited takes nobody's turn."""
        self._begun.clear()
        for tenant, waiting in tuple(self._waiting.items()):
            while waiting and self._begun[tenant] < self._most:
                if not (turn := waiting.popleft()).done():
                    turn.set_result(None)
                    self._begin(tenant)
            if not waiting:
                del self._waiting[tenant]
