"""Tokens that keys with a limit have used within a minute, counted over the whole mesh.

All gateways add to one entry for each key, in the bucket `choir_key_uses`, and each only to what it has read:
who was slower reads again. What was used is counted before its reply ends, so whoever asks again, at any
gateway, finds it counted; a key gets its limit and at most what was in work when it was reached.
"""

from __future__ import annotations

import asyncio
import time

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import ChoirError, Overloaded
from schemas.requests.keys import ApiKey
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket, WrongRevision

MINUTE_S = 60
log = get_logger("gateway.budget")

Used = dict[int, int]
"""How many tokens in which second (Unix time)."""


class Budgets:
    """What the keys of a mesh have used."""

    def __init__(self, client: Client) -> None:
        self._bucket = Bucket(client, subjects.KEY_USES_BUCKET, BYTES)
        self._adding: dict[str, asyncio.Lock] = {}
        self._pending: dict[str, int] = {}

    async def check(self, key: ApiKey) -> None:
        """Raises Overloaded for a key that has used what it may, and says when there is room again;
        BrokerUnavailable while nobody can say."""
        most = key.limits.tokens_per_minute
        if most is None:
            return
        now_s = time.time()
        used = _within(_read((await self._bucket.get(subjects.key_use(key.id))).value), now_s)
        taken = sum(used.values()) + self._pending.get(key.id, 0)
        if taken >= most:
            raise Overloaded(
                f"this key used {taken} tokens within a minute, and may use {most}",
                retry_after_s=_room_after_s(used, taken, most, now_s),
            )

    async def charge(self, key: ApiKey, tokens: int) -> None:
        """So many tokens were used; returns when every gateway knows. What cannot be stored is logged, and
        not counted: the answer is there."""
        self._pending[key.id] = self._pending.get(key.id, 0) + tokens
        try:
            async with self._adding.setdefault(key.id, asyncio.Lock()):
                await self._add(subjects.key_use(key.id), tokens)
        except ChoirError as error:
            log.warning("tokens of a key were not counted", key=key.id, tokens=tokens, code=error.code)
        finally:
            self._pending[key.id] -= tokens

    async def _add(self, place: str, tokens: int) -> None:
        while True:  # each time that another gateway was faster, it has counted something
            entry, now_s = await self._bucket.get(place), time.time()
            used = _within(_read(entry.value), now_s)
            used[int(now_s)] = used.get(int(now_s), 0) + tokens
            try:
                await self._bucket.update(place, _written(used), entry.revision)
            except WrongRevision:
                continue
            return

    def forget(self, key_id: str) -> None:
        """A key is there no more."""
        self._adding.pop(key_id, None)
        self._pending.pop(key_id, None)


def _within(used: Used, now_s: float) -> Used:
    """What is not a minute old, to the second."""
    return {second: tokens for second, tokens in used.items() if second + MINUTE_S > int(now_s)}


def _room_after_s(used: Used, taken: int, most: int, now_s: float) -> float:
    """When enough of what was used is a minute old."""
    for second, tokens in sorted(used.items()):
        taken -= tokens
        if taken < most:
            return max(1.0, second + MINUTE_S - now_s)
    return float(MINUTE_S)


def _read(written: bytes | None) -> Used:
    """From `1700000000:12 1700000001:7`."""
    parts = (part.split(b":") for part in (written or b"").split())
    return {int(second): int(tokens) for second, tokens in parts}


def _written(used: Used) -> bytes:
    return b" ".join(b"%d:%d" % one for one in sorted(used.items()))
