"""Tokens that keys with a limit have used within a minute, counted over the whole mesh.

All gateways add to one entry for each key, in the bucket `choir_key_uses`, and each only to what it has read:
who was slower reads again. What was used is counted before its reply ends, so whoever asks again, at any
gateway, finds it counted; a key gets its limit and at most what was in work when it was reached. Where the
mesh cannot say what was used (a broker whose host has an older Choir has no place for it) each gateway counts
for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError, Overloaded
from schemas.requests.keys import ApiKey
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket, WrongRevision
from services.gateway.access.alone import Alone
from services.gateway.access.minute import Used, read_used, room_after_s, with_more, within, written_used

log = get_logger("gateway.budget")


class Budgets:
    """What the keys of a mesh have used. Of each key it keeps what was used at this gateway, and how much of
    that is still to be stored. `now` is the time that it is for all gateways."""

    def __init__(self, client: Client, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._bucket = Bucket(client, subjects.KEY_USES_BUCKET, BYTES)
        self._own: dict[str, Used] = {}
        self._adding: dict[str, asyncio.Lock] = {}
        self._pending: dict[str, int] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._alone = Alone("tokens")

    async def check(self, key: ApiKey) -> None:
        """Raises Overloaded for a key that has used what it may, and says when there is room again."""
        most = key.limits.tokens_per_minute
        if most is None:
            return
        now_s = self._now()
        used = await self._used(key.id, now_s)
        taken = sum(used.values())
        if taken >= most:
            raise Overloaded(
                f"this key used {taken} tokens within a minute, and may use {most}",
                retry_after_s=room_after_s(used, most, now_s),
            )

    async def _used(self, key_id: str, now_s: float) -> Used:
        """What all gateways have counted, with what this one is about to; or this one alone."""
        if not self._alone:
            try:
                entry = await self._bucket.get(subjects.key_use(key_id))
            except BrokerUnavailable as error:
                self._alone.begin(error)
            else:
                return with_more(within(read_used(entry.value), now_s), self._pending.get(key_id, 0), now_s)
        return within(self._own.get(key_id, {}), now_s)

    async def charge(self, key: ApiKey, tokens: int) -> None:
        """So many tokens were used; returns when every gateway knows, and is done also for who waits for that
        no more. What cannot be stored is logged, and counted here alone: the answer is there."""
        now_s = self._now()
        self._own[key.id] = with_more(within(self._own.get(key.id, {}), now_s), tokens, now_s)
        self._pending[key.id] = self._pending.get(key.id, 0) + tokens
        storing = asyncio.create_task(self._store(key.id), name=f"tokens of {key.id}")
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        await asyncio.shield(storing)

    async def _store(self, key_id: str) -> None:
        """Stores all that is pending of a key: what ends at once is one word."""
        async with self._adding.setdefault(key_id, asyncio.Lock()):
            tokens = self._pending.get(key_id, 0)
            if not tokens:
                return
            try:
                if not self._alone:
                    await self._add(subjects.key_use(key_id), tokens)
            except BrokerUnavailable as error:
                self._alone.begin(error)
            except ChoirError as error:
                log.warning("tokens of a key were not counted", key=key_id, tokens=tokens, code=error.code)
            finally:
                if key_id in self._pending:
                    self._pending[key_id] -= tokens

    async def _add(self, place: str, tokens: int) -> None:
        while True:  # each time that another gateway was faster, it has counted something
            entry, now_s = await self._bucket.get(place), self._now()
            used = with_more(within(read_used(entry.value), now_s), tokens, now_s)
            try:
                await self._bucket.update(place, written_used(used), entry.revision)
            except WrongRevision:
                continue
            return

    def forget(self, key_id: str) -> None:
        """A key is there no more."""
        for of_key in (self._own, self._adding, self._pending):
            of_key.pop(key_id, None)
