"""What pages show that changes: looked at while anybody watches, once for all who see the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping

from schemas.errors import ChoirError, InternalError
from services.chassis.logs import get_logger
from services.chassis.process.cancelling import ended
from services.gateway.dashboard.shell.live import event

Fragments = Mapping[str, str]
"""Parts of a page, by the ids of their elements."""
Look = Callable[[], Awaitable[Fragments]]

log = get_logger("gateway.dashboard")


class Watch:
    """Looks every `every_s` while somebody watches, and makes of each look the events that browsers get."""

    def __init__(self, look: Look, every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._looking: asyncio.Task[None] | None = None
        self._first = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._looks = 0
        self._html: dict[str, str] = {}
        self._events: dict[str, bytes] = {}
        self._failure: ChoirError | None = None
        self.watchers = 0

    async def events(self) -> AsyncGenerator[dict[str, bytes], None]:
        """The event of each fragment as it is now, and again after each look, until the watcher closes
        this. Raises what the look raised."""
        self.watchers += 1
        try:
            async with self._first:  # those who come meanwhile wait for the same look
                if self._looking is None:
                    self._keep(await self._look())
                    self._looking = asyncio.create_task(self._look_on(), name="dashboard watch")
            while self._failure is None:
                seen = self._looks
                yield self._events
                async with self._changed:
                    await self._changed.wait_for(lambda seen=seen: self._looks != seen)  # type: ignore[misc]
            raise self._failure
        finally:
            self.watchers -= 1
            if not self.watchers and self._looking is not None:
                looking, self._looking = self._looking, None
                await ended((looking,))

    def _keep(self, fragments: Fragments) -> None:
        """An event is made anew only where its fragment is another."""
        for element, html in fragments.items():
            if self._html.get(element) != html:
                self._html[element] = html
                self._events[element] = event("fragment", {"id": element, "html": html})

    async def _look_on(self) -> None:
        while self._failure is None:
            await asyncio.sleep(self._every_s)
            try:
                self._keep(await self._look())
            except ChoirError as error:
                self._failure = error
            except Exception as error:
                log.exception("what a page shows could not be looked at")
                self._failure = InternalError(f"{type(error).__name__} in the gateway")
            async with self._changed:
                self._looks += 1
                self._changed.notify_all()


class Watches:
    """The watches that somebody has open: one for all who see the same."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Watch] = {}

    async def events(
        self, key: Hashable, look: Look, every_s: float
    ) -> AsyncGenerator[dict[str, bytes], None]:
        """The events of what `key` stands for; `look` is used if nobody watches that yet."""
        watch = self._open.get(key)
        if watch is None:
            watch = self._open[key] = Watch(look, every_s)
        seen = watch.events()
        try:
            async for events in seen:
                yield events
        finally:
            await seen.aclose()
            if not watch.watchers and self._open.get(key) is watch:
                del self._open[key]
