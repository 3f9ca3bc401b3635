"""Trims the write-once streams: their oldest bytes go, and no more than needed.

They refuse what is new when they are full, so that nothing stored is overwritten; a mesh that is busy for
longer than it keeps its results would come to a standstill. So the oldest bytes go before that, and
`choir.fetch` says so of what it no longer finds.
"""

from __future__ import annotations

import time

from nats.aio.client import Client
from nats.js import JetStreamContext, api

from schemas import subjects
from services.chassis.logs import get_logger
from services.router.retention.oldest import cut_after

FULL_SHARE = 0.8
LEFT_SHARE = 0.7
LOOK_INTERVAL_S = 10.0
WRITE_ONCE_STREAMS = (subjects.ANSWERS_STREAM, subjects.RESULTS_STREAM)

log = get_logger("router.stream_trimmer")


def bytes_to_free(state: api.StreamState, max_bytes: int) -> int:
    """How many of a stream's oldest bytes are to go; 0 while it has room."""
    if max_bytes <= 0 or state.bytes < FULL_SHARE * max_bytes:
        return 0
    return state.bytes - int(LEFT_SHARE * max_bytes)


class StreamTrimmer:
    """Looks at the write-once streams now and then."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js = JetStreamContext(client, timeout=2.0)
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
        too_much = bytes_to_free(info.state, info.config.max_bytes or 0)
        if not too_much:
            return
        sequence = await cut_after(self._client, stream, info.state.first_seq, too_much)
        log.warning("stream nearly full, the oldest go", stream=stream, before=sequence, bytes=too_much)
        await self._js.purge_stream(stream, seq=sequence)
