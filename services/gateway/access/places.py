"""Requests that a key with a limit of them has in work, counted over the mesh, and so its batch work.

All gateways write how many places they hold into one entry for each key and kind, in the bucket
`choir_key_uses`, and each only if nobody has changed what it has read: so together they never hold more than
the key may have. Places are leased: those of a gateway that was killed are free after `LEASE_S`. A place
that a request leaves stays with its gateway for a moment, for the next one: whoever asks one thing after the
other waits for the broker once. Who finds all of them held, some elsewhere, looks again for half a second
before it is refused.

Where the mesh cannot say who holds what (a broker whose host has an older Choir has no place for it) each
gateway counts for itself; so do gateways of an older version. One that stood still for longer than its lease
goes on with what it has in work: until that ends the key has more than it may.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError, Overloaded
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket, Entry, WrongRevision
from services.chassis.process.cancelling import ended
from services.gateway.access.alone import Alone

LEASE_S = 30.0
RENEW_S = 8.0
LINGER_S = 0.05
"""So long a place that is left waits for the next request."""
LOOK_S = 0.05
LOOKS = 10
"""How often who finds no place looks, and the pause between."""
END_PATIENCE_S = 1.0
SOON_S = 1.0

log = get_logger("gateway.places")

Held = dict[str, tuple[int, int]]
"""For each gateway: how many places it holds, and until when (Unix time)."""


@dataclass(frozen=True)
class PlaceKind:
    """What places are of: where the mesh knows them of a key, and what a key is told that has them all."""

    key: Callable[[str], str]
    full: str


ALL = PlaceKind(subjects.key_places, "this key has as many requests in work as it may have at a time: {most}")
BATCH = PlaceKind(
    subjects.key_batch_places,
    "this key has as many requests of the class batch in work as its part of the queue has room for: {most}",
)


class Places:
    """What all keys hold at one gateway. `now` is the time that it is for all gateways."""

    def __init__(
        self, client: Client, lease_s: float = LEASE_S, now: Callable[[], float] = time.time
    ) -> None:
        self.now = now
        self._bucket = Bucket(client, subjects.KEY_USES_BUCKET, BYTES)
        self.gateway = secrets.token_hex(6)
        self.lease_s = lease_s
        self.renew_s = lease_s * RENEW_S / LEASE_S
        self._work: set[asyncio.Task[None]] = set()
        self._of: dict[tuple[str, PlaceKind], KeyPlaces] = {}
        self.alone = Alone("requests in work")

    def of(self, key_id: str, kind: PlaceKind = ALL) -> KeyPlaces:
        """Those of one key."""
        if (key_id, kind) not in self._of:
            self._of[key_id, kind] = KeyPlaces(self, self._bucket, key_id, kind)
        return self._of[key_id, kind]

    def forget(self, key_id: str) -> None:
        """A key is there no more: what it still holds runs out."""
        for kind in (ALL, BATCH):
            if (places := self._of.pop((key_id, kind), None)) is not None:
                places.end()

    def run_in_background(self, work: Coroutine[None, None, None], name: str) -> None:
        """Has something done for which no request waits."""
        task = asyncio.create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def settle(self) -> None:
        """The gateway ends: what it holds is free at once."""
        for places in self._of.values():
            places.end()
        if self._work:
            _, late = await asyncio.wait(tuple(self._work), timeout=END_PATIENCE_S)
            await ended(late)


class KeyPlaces:
    """The places of one key and kind at one gateway: how many are `used` by requests, and for how many it has
    `told` the mesh that it holds them; None if that is not sure."""

    def __init__(self, shared: Places, bucket: Bucket[bytes], key_id: str, kind: PlaceKind) -> None:
        self._shared = shared
        self._bucket = bucket
        self._key_id = key_id
        self._kind = kind
        self._place = kind.key(key_id)
        self._lock = asyncio.Lock()
        self._entry: Entry[bytes] | None = None
        self._used = 0
        self._waiting = 0
        self._told: int | None = 0
        self._told_until_s = 0.0
        self._full_at_s = 0.0
        self._returning = False
        self._renewal: asyncio.TimerHandle | None = None
        self._ended = False

    async def take(self, most: int) -> None:
        """A place for a request, until it is left. Raises Overloaded if all are held."""
        if self._used + self._waiting >= most:
            raise self._full(most)
        began_s = time.monotonic()
        self._waiting += 1
        try:
            async with self._lock:
                if not self._has_one():
                    await self._find_one(most, began_s)
                self._used += 1
        except BaseException:
            self._return_soon()
            raise
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        """A request has ended."""
        self._used -= 1
        self._return_soon()

    def end(self) -> None:
        """Nothing is held any longer than it is used."""
        self._ended = True
        if self._renewal is not None:
            self._renewal.cancel()
        self._return_soon()

    def _full(self, most: int) -> Overloaded:
        return Overloaded(self._kind.full.format(most=most), retry_after_s=SOON_S)

    def _has_one(self) -> bool:
        if self._shared.alone:
            return True
        held = self._told is not None and time.monotonic() < self._told_until_s
        return held and self._used < (self._told or 0)

    async def _find_one(self, most: int, began_s: float) -> None:
        """Returns when a place is held for one more request, or is not to be asked for."""
        looks = 0
        try:
            while not self._has_one():
                if looks >= LOOKS or began_s < self._full_at_s:
                    self._full_at_s = time.monotonic()
                    raise self._full(most)
                known = self._entry is not None
                others, revision = await self._read()
                wanted = min(most - sum(count for count, _ in others.values()), self._used + self._waiting)
                if wanted > self._used:
                    await self._tell(wanted, others, revision)
                    continue
                self._entry = None
                if not known:
                    looks += 1
                    await asyncio.sleep(LOOK_S)
        except BrokerUnavailable as error:
            self._shared.alone.begin(error)

    async def _read(self) -> tuple[Held, int]:
        """What other gateways hold, and the revision of that."""
        if self._entry is None:
            self._entry = await self._bucket.get(self._place)
        held, now_s = read_held(self._entry.value), self._shared.now()
        others = {name: one for name, one in held.items() if name != self._shared.gateway and one[1] > now_s}
        return others, self._entry.revision

    async def _tell(self, count: int, others: Held, revision: int) -> None:
        """Has the mesh know that so many places are held here, unless others have changed theirs meanwhile:
        then nothing is sure."""
        lease_s, self._entry, self._told = self._shared.lease_s, None, None
        until_s = time.monotonic() + lease_s
        held = (
            {**others, self._shared.gateway: (count, int(self._shared.now() + lease_s))} if count else others
        )
        written = written_held(held)
        try:
            revision = await self._bucket.update(self._place, written, revision)
        except WrongRevision:
            return
        self._entry, self._told, self._told_until_s = Entry(written or None, revision), count, until_s
        self._renew_later()

    def _return_soon(self) -> None:
        """What is not used is free for other gateways, in a moment."""
        if not self._returning and not self._shared.alone:
            self._returning = True
            self._shared.run_in_background(self._return(), f"places of {self._key_id}")

    async def _return(self) -> None:
        if not self._ended:
            await asyncio.sleep(LINGER_S)
        self._returning = False
        async with self._lock:
            await self._match(lambda wanted: self._told is not None and self._told <= wanted)

    def _renew_later(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        if self._told and not self._ended:
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_later(self._shared.renew_s, self._renew_now)

    def _renew_now(self) -> None:
        self._shared.run_in_background(self._renew(), f"lease of places of {self._key_id}")

    async def _renew(self) -> None:
        async with self._lock:
            told_s = self._told_until_s
            await self._match(lambda _wanted: self._told is not None and self._told_until_s > told_s)

    async def _match(self, done: Callable[[int], bool]) -> None:
        """Has the mesh told of what is used and waited for, until that is `done`."""
        try:
            while not done(wanted := self._used + self._waiting):
                others, revision = await self._read()
                await self._tell(wanted, others, revision)
        except BrokerUnavailable as error:
            self._shared.alone.begin(error)
        except ChoirError as error:
            log.warning("places of a key were not told of", key=self._key_id, code=error.code)


def read_held(written: bytes | None) -> Held:
    """From `3f2a90c1b2d4:2:1700000030 77aa01c1b2d4:1:1700000031`."""
    parts = (part.split(b":") for part in (written or b"").split())
    return {name.decode(): (int(count), int(until_s)) for name, count, until_s in parts}


def written_held(held: Held) -> bytes:
    """The same, written."""
    return b" ".join(b"%s:%d:%d" % (name.encode(), *one) for name, one in sorted(held.items()))
