"""A streamed reply: its frames as they come, and signs of life while there are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.types import Message, Receive, Scope, Send

from schemas.errors import ChoirError, InternalError
from services.chassis.logs import get_logger
from services.chassis.process.cancelling import ended
from services.gateway.http.connection.protocol import connection_of
from services.gateway.http.errors import stopping
from services.gateway.http.exchange import Reply
from services.gateway.settings import GatewaySection

log = get_logger("gateway.streaming")

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
HEAD = b"HTTP/1.1 200 OK\r\n%stransfer-encoding: chunked\r\n"
LAST: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class StreamedReply:
    """An ASGI response of `frames`, each of which is complete: a line, an event.

    An error that comes before the first frame and within `first_byte_s` is raised, so that it gets a status
    of its own; a later one is the last frame, as `on_error` makes it. `heartbeat` makes a frame that says
    nothing.

    Frames are taken in the request's own task; another one begins only for a stream that is silent at first
    or long enough to fall silent.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        settings: GatewaySection,
        *,
        media_type: str,
        heartbeat: Callable[[], bytes],
        on_error: Callable[[ChoirError], bytes],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._frames = frames
        self._settings = settings
        self._heartbeat = heartbeat
        self._on_error = on_error
        self._said = {
            "content-type": media_type,
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            **(headers or {}),
        }
        self._made_head = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the reply."""
        loop = asyncio.get_running_loop()
        self._scope, self._send, self._now = scope, send, loop.time
        loop.call_soon(self._head)
        self._begun = False
        self._beating: asyncio.Task[None] | None = None
        silent = loop.call_later(self._settings.first_byte_s, self._start_beating)
        try:
            await self._write_all()
            if not self._begun:
                await self._begin()
            await self._stop_beating()
            await send(LAST)
        except asyncio.CancelledError:
            # The gateway stops; a client who hung up hears nothing of this.
            if self._begun:
                await self._write(self._on_error(stopping()))
                await send(LAST)
            raise
        finally:
            silent.cancel()
            await self._stop_beating()
            await self._frames.aclose()

    async def _begin(self) -> None:
        self._begun, self._written_s = True, self._now()
        if isinstance(self._send, Reply) and self._send.begin_at_once(self._begin_here, self._head()):
            return
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})

    def _begin_here(self, head: bytes) -> bool:
        connection = connection_of(self._scope)
        return connection is not None and connection.begin(self._scope, head)

    @property
    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._said.items()]

    def _head(self) -> bytes:
        """The head as its bytes, without what the exchange adds; made once, before the first frame comes."""
        if not self._made_head:
            self._made_head = HEAD % b"".join([b"%s: %s\r\n" % header for header in self._headers])
        return self._made_head

    async def _write_all(self) -> None:
        """All frames; an error before the beginning is raised."""
        try:
            async for frame in self._frames:
                if not self._begun:
                    await self._begin()
                await self._write(frame)
        except Exception as error:
            if not self._begun:
                raise
            await self._write(self._on_error(_told(error)))

    async def _write(self, frame: bytes) -> None:
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})
        self._written_s = self._now()

    def _start_beating(self) -> None:
        self._beating = asyncio.create_task(self._beat(), name="heartbeat")

    async def _stop_beating(self) -> None:
        beating, self._beating = self._beating, None
        if beating is not None:
            await ended((beating,))

    async def _beat(self) -> None:
        """A sign of life if nothing has come yet, and whenever nothing was written for a while."""
        if not self._begun:
            await self._begin()
            await self._write(self._heartbeat())
        pause_s = self._settings.heartbeat_s
        while True:
            quiet_s = self._now() - self._written_s
            if quiet_s >= pause_s:
                await self._write(self._heartbeat())
                quiet_s = 0.0
            await asyncio.sleep(pause_s - quiet_s)


def _told(error: Exception) -> ChoirError:
    """What a client is told of an error in the midst of its stream."""
    if isinstance(error, ChoirError):
        return error
    log.error("a stream failed", exc_info=error)
    return InternalError(f"{type(error).__name__} in the gateway")
