"""A streamed reply: its frames as they come, and signs of life while there are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.types import Message, Receive, Scope, Send

from schemas.errors import ChoirError, InternalError
from services.chassis.logs import get_logger
from services.chassis.process.cancelling import ended
from services.gateway.http.errors import stopping
from services.gateway.settings import GatewaySection

log = get_logger("gateway.streaming")

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
LAST: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class StreamedReply:
    """An ASGI response of `frames`, each of which is complete: a line, an event.

    An error that comes before the first frame and within `first_byte_s` is raised, so that it gets a status
    of its own; a later one is the last frame, as `on_error` makes it. `heartbeat` makes a frame that says
    nothing.
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
        said = {
            "content-type": media_type,
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            **(headers or {}),
        }
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the reply."""
        self._send = send
        self._now = asyncio.get_running_loop().time
        first = asyncio.ensure_future(anext(self._frames, None))
        beating: asyncio.Task[None] | None = None
        try:
            await asyncio.wait((first,), timeout=self._settings.first_byte_s)
            if first.done():
                first.result()  # its error becomes the reply
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            if not first.done():
                await self._write(self._heartbeat())
            self._written_s = self._now()
            beating = asyncio.create_task(self._beat(), name="heartbeat")
            await self._write_all(first)
            await ended((beating,))
            await send(LAST)
        except asyncio.CancelledError:
            # The gateway stops; a client who hung up hears nothing of this.
            if beating is not None:
                await self._write(self._on_error(stopping()))
                await send(LAST)
            raise
        finally:
            tasks = (first,) if beating is None else (first, beating)
            await ended(tasks)
            await self._frames.aclose()

    async def _write_all(self, first: asyncio.Future[bytes | None]) -> None:
        try:
            frame = await first
            if frame is not None:
                await self._write(frame)
            async for frame in self._frames:
                await self._write(frame)
        except ChoirError as error:
            await self._write(self._on_error(error))
        except Exception as error:
            log.exception("a stream failed")
            await self._write(self._on_error(InternalError(f"{type(error).__name__} in the gateway")))

    async def _write(self, frame: bytes) -> None:
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})
        self._written_s = self._now()

    async def _beat(self) -> None:
        """A sign of life whenever nothing was written for a while."""
        pause_s = self._settings.heartbeat_s
        while True:
            quiet_s = self._now() - self._written_s
            if quiet_s >= pause_s:
                await self._write(self._heartbeat())
                quiet_s = 0.0
            await asyncio.sleep(pause_s - quiet_s)
