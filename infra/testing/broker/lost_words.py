"""A broker whose word is lost: the only thing made up is the moment at which that happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import pytest
from nats.js import JetStreamContext


async def _nothing() -> None:
    """Happens."""


class LostWords:
    """Loses the word of what is published, as often as `times`, for subjects with `part`.

    With `stored` it is published before, else the broker never gets it. Then `meanwhile` happens. With
    `for_ever` no word comes at all, else the time of who waits for it is over.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        part: str,
        times: int,
        *,
        for_ever: bool = False,
        stored: bool = True,
        meanwhile: Callable[[], Awaitable[object]] = _nothing,
    ) -> None:
        self.lost, real = 0, JetStreamContext.publish
        self.stored = asyncio.Event()

        async def publish(js: JetStreamContext, subject: str, *args: Any, **more: Any) -> Any:
            if part not in subject or self.lost >= times:
                return await real(js, subject, *args, **more)
            self.lost += 1
            if stored:
                await real(js, subject, *args, **more)
            self.stored.set()
            await meanwhile()
            if for_ever:
                await asyncio.Event().wait()
            raise nats.errors.TimeoutError

        monkeypatch.setattr(JetStreamContext, "publish", publish)
