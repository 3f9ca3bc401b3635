"""Streams that one server of a cluster keeps in its memory, made anew on another one when that server has
gone.

They hold what is needed for minutes: text while it is generated, the log of a pipeline. A cluster does not
move such a stream by itself, for it cannot know that nobody waits for what is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from infra.broker.streams.definitions import Copies, stream_config
from schemas.broker import catalog
from services.chassis.nats.election import passes

LOOK_INTERVAL_S = 2.0
LOOK_PATIENCE_S = 2.0
GONE_AFTER_S = 8.0
"""So long nobody tells of a stream before its server is given up: longer than an election, or a restart."""


class OneCopy:
    """Looks after the streams that are not replicated. `say` is told when one is made anew."""

    def __init__(
        self,
        client: Client,
        say: Callable[[str], None],
        gone_after_s: float = GONE_AFTER_S,
        patience_s: float = LOOK_PATIENCE_S,
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=patience_s)
        self._say = say
        self._gone_after_s = gone_after_s
        self._specs = [spec for spec in catalog.STREAMS if not spec.replicated]
        self._missing_since_s: dict[str, float] = {}

    async def keep(self) -> None:
        """Looks again and again, for ever."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            if self._client.is_connected:
                await self.look()

    async def look(self) -> bool:
        """Makes anew what has been gone for too long; whether everything is there."""
        missing = [spec for spec in self._specs if not await self._is_there(spec.name)]
        now_s = time.monotonic()
        self._missing_since_s = {spec.name: self._missing_since_s.get(spec.name, now_s) for spec in missing}
        for spec in missing:
            if now_s - self._missing_since_s[spec.name] >= self._gone_after_s and await self._answers():
                await self._make(spec)
        return not missing

    async def _is_there(self, stream: str) -> bool:
        try:
            await self._js.stream_info(stream)
        except nats.errors.Error as error:
            if not passes(error) and not isinstance(error, nats.js.errors.NotFoundError):
                raise
            return False
        return True

    async def _answers(self) -> bool:
        """Whether the cluster has a leader: without one nothing is known of any stream."""
        try:
            await self._js.account_info()
        except nats.errors.Error as error:
            if not passes(error):
                raise
            return False
        return True

    async def _make(self, spec: catalog.StreamSpec) -> None:
        try:
            # The server that is gone does not confirm it, but the others have struck it off.
            with contextlib.suppress(nats.errors.TimeoutError, nats.js.errors.NotFoundError):
                await self._js.delete_stream(spec.name)
            await self._js.add_stream(stream_config(spec, Copies.on(self._client)))
        except nats.errors.Error as error:
            self._say(f"stream {spec.name} could not be made anew yet: {error}")
        else:
            self._missing_since_s.pop(spec.name, None)
            self._say(f"stream {spec.name} is made anew: the server that kept it has gone")
