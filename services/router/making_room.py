"""Who has waited longest makes room, when its tenant is refused a place.

A client that vanishes says nothing, and where tenants have accounts of their own the broker does not tell
either: a place would be taken until the request has ended. So those of the tenant who have waited for a while
are told `not_ready`, the longest first, an eighth of them a second. What they asked for goes on: who is there
asks again under the same id, or fetches, as the Python client does, and has a place again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from schemas import subjects
from schemas.errors import NotReady
from services.chassis.logs import get_logger

LEAST_WAIT_S = 5.0
"""Who has waited for less is not disturbed."""
PAUSE_S = 1.0
SHARE = 8
"""One of so many makes room at a time, and at least one."""

log = get_logger("router.making_room")


@dataclass
class _Waiting:
    tenant: str
    task: asyncio.Task[None] | None
    since_s: float
    makes_room: bool = False


class MakingRoom:
    """All who wait for a result at this router, in the order in which they began."""

    def __init__(self, now: Callable[[], float] = time.monotonic, least_wait_s: float = LEAST_WAIT_S) -> None:
        self._now = now
        self._least_wait_s = least_wait_s
        self._numbers = count()
        self._waiting: dict[int, _Waiting] = {}
        self._next_s: dict[str, float] = {}

    @contextmanager
    def waits(self, tenant: str, request_id: str) -> Iterator[None]:
        """As long as this lasts its task waits for a result. Raises NotReady if it is to make room."""
        number = next(self._numbers)
        one = self._waiting[number] = _Waiting(tenant, asyncio.current_task(), self._now())
        try:
            yield
        except asyncio.CancelledError:
            if not one.makes_room or one.task is None or one.task.uncancel():
                raise
            raise NotReady(
                f"request {subjects.bare_id(request_id)} is still being worked on, and others wait for a "
                "place: fetch its result",
                retry_after_s=1.0,
            ) from None
        finally:
            del self._waiting[number]

    def on_refused(self, tenant: str) -> None:
        """A tenant was refused a place: some of those who have waited for long give up theirs."""
        now_s = self._now()
        if now_s < self._next_s.get(tenant, 0.0):
            return
        self._next_s[tenant] = now_s + PAUSE_S
        all_ = [one for one in self._waiting.values() if one.tenant == tenant and not one.makes_room]
        going = all_[: len(all_) // SHARE + 1]
        for one in going:
            if one.task is not None and one.since_s <= now_s - self._least_wait_s:
                one.makes_room = True
                one.task.cancel("makes room")
        if gone := sum(one.makes_room for one in going):
            log.info("those who waited longest make room for others", tenant=tenant, count=gone)
