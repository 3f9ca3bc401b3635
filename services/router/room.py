"""Keeps room in the write-once streams.

They refuse what is new when they are full, so that nothing stored is overwritten; a mesh that is busy for
longer than it keeps its results would come to a standstill. So the oldest go before that, and `choir.fetch`
no longer finds them.
"""

from __future__ import annotations

import time

from nats.js import JetStreamContext, api

from schemas import subjects
from services.chassis.logs import get_logger

FULL_SHARE = 0.8
FREED_SHARE = 0.25
LOOK_INTERVAL_S = 10.0
WRITE_ONCE_STREAMS = (subjects.ANSWERS_STREAM, subjects.RESULTS_STREAM)

log = get_logger("router.room")


def purge_before(state: api.StreamState, max_bytes: int) -> int | None:
    """The sequence before which a stream is to be emptied; None while it has room.

    Messages are counted as if all were of one size, which is close enough for a quarter of them.
    """
    if max_bytes <= 0 or state.bytes < FULL_SHARE * max_bytes:
        return None
    span = state.last_seq - state.first_seq + 1
    return state.first_seq + max(1, int(span * FREED_SHARE))


class Room:
    """Looks at the write-once streams now and then."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._looked_at = -LOOK_INTERVAL_S

    async def make(self) -> None:
        """Empties what is too full, at most every ten seconds."""
        if time.monotonic() < self._looked_at + LOOK_INTERVAL_S:
            return
        self._looked_at = time.monotonic()
        for stream in WRITE_ONCE_STREAMS:
            await self._make_in(stream)

    async def _make_in(self, stream: str) -> None:
        info = await self._js.stream_info(stream)
        sequence = purge_before(info.state, info.config.max_bytes or 0)
        if sequence is not None:
            log.warning("stream nearly full, the oldest go", stream=stream, before=sequence)
            await self._js.purge_stream(stream, seq=sequence)
