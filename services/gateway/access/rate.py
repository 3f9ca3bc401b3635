"""Requests that keys with a limit have asked within a minute, counted over the mesh.

All gateways add to one entry for each key, in the bucket `choir_key_uses`, and each only if nobody has
changed what it has read: who was slower reads again. So together they never let in more than the key may ask.
What comes to one gateway at the same time is counted in one word; what is refused is not counted.

Where the mesh cannot say what was counted (a broker whose host has an older Choir has no place for it) each
gateway counts for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import BrokerUnavailable, Overloaded
from services.chassis.nats.bucket import BYTES, Bucket, Entry, WrongRevision
from services.gateway.access.alone import Alone
from services.gateway.access.minute import Used, read_used, room_after_s, with_more, within, written_used


class Rates:
    """What all keys have asked, as one gateway knows it. `now` is the time that it is for all gateways."""

    def __init__(self, client: Client, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.alone = Alone("requests a minute")
        self._bucket = Bucket(client, subjects.KEY_USES_BUCKET, BYTES)
        self._of: dict[str, KeyRate] = {}

    def of(self, key_id: str) -> KeyRate:
        """That of one key."""
        if key_id not in self._of:
            self._of[key_id] = KeyRate(self, self._bucket, key_id)
        return self._of[key_id]

    def forget(self, key_id: str) -> None:
        """A key is there no more."""
        self._of.pop(key_id, None)


@dataclass(eq=False)
class _Asking:
    """A request that is to be counted: whether it is let in, or else when to come again, once that is
    known."""

    most: int
    let_in: bool | None = None
    retry_after_s: float = 1.0


class KeyRate:
    """The requests of one key."""

    def __init__(self, shared: Rates, bucket: Bucket[bytes], key_id: str) -> None:
        self._shared = shared
        self._bucket = bucket
        self._place = subjects.key_requests(key_id)
        self._lock = asyncio.Lock()
        self._asking: list[_Asking] = []
        self._counting: set[asyncio.Task[None]] = set()
        self._entry: Entry[bytes] | None = None
        self._own: Used = {}

    async def take(self, most: int) -> None:
        """Counts a request. Raises Overloaded if the key has asked `most` within a minute, and says when it
        may ask again. Whoever hangs up meanwhile leaves the count of others as it is."""
        one = _Asking(most)
        self._asking.append(one)
        counting = asyncio.create_task(self._decide(one), name=f"count at {self._place}")
        self._counting.add(counting)
        counting.add_done_callback(self._counting.discard)
        await asyncio.shield(counting)
        if not one.let_in:
            raise Overloaded(
                f"this key may ask {most} requests a minute, and has", retry_after_s=one.retry_after_s
            )

    async def _decide(self, one: _Asking) -> None:
        """Returns when it is known whether a request is let in, and with it all that wait by now."""
        async with self._lock:
            try:
                if one.let_in is None:
                    await self._count([each for each in self._asking if each.let_in is None])
            finally:
                self._asking.remove(one)

    async def _count(self, asking: list[_Asking]) -> None:
        """Lets in as many as there is room for, the first ones, and has all gateways know."""
        most = asking[-1].most
        if not self._shared.alone:
            try:
                while not await self._count_at_the_mesh(asking, most):
                    self._entry = None  # another gateway was faster, and has counted something
            except BrokerUnavailable as error:
                self._entry = None
                self._shared.alone.begin(error)
            else:
                return
        now_s = self._shared.now()
        self._let_in(asking, within(self._own, now_s), most, now_s)

    async def _count_at_the_mesh(self, asking: list[_Asking], most: int) -> bool:
        """False if what was known here is not so any more: then nothing is counted."""
        if self._entry is None:
            self._entry = await self._bucket.get(self._place)
        now_s = self._shared.now()
        used = within(read_used(self._entry.value), now_s)
        count = _room(asking, used, most)
        if count:
            written = written_used(with_more(used, count, now_s))
            try:
                revision = await self._bucket.update(self._place, written, self._entry.revision)
            except WrongRevision:
                return False
            self._entry = Entry(written, revision)
        self._let_in(asking, used, most, now_s)
        return True

    def _let_in(self, asking: list[_Asking], used: Used, most: int, now_s: float) -> None:
        """Says to each whether there is room for it beside what was `used` before them."""
        count = _room(asking, used, most)
        self._own = with_more(within(self._own, now_s), count, now_s)
        after_s = room_after_s(with_more(used, count, now_s), most, now_s)
        for number, each in enumerate(asking):
            each.let_in, each.retry_after_s = number < count, after_s


def _room(asking: list[_Asking], used: Used, most: int) -> int:
    """How many of those who ask there is room for."""
    return max(0, min(len(asking), most - sum(used.values())))
