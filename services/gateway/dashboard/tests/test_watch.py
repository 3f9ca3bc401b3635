"""What several browsers watch is looked at once, and by nobody when they have gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from schemas.errors import BrokerUnavailable
from services.gateway.dashboard.shell.watch import Fragments, Watches

EVERY_S = 0.001
WATCHERS = 50
DEADLINE_S = 180.0


class Page:
    """What is looked at, and how often it was."""

    def __init__(self) -> None:
        self.looks = 0
        self.failure: BrokerUnavailable | None = None

    async def look(self) -> Fragments:
        await asyncio.sleep(EVERY_S)
        if self.failure is not None:
            raise self.failure
        self.looks += 1
        return {"count": str(self.looks)}


Events = AsyncGenerator[dict[str, bytes], None]


def looking() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "dashboard watch"]


async def test_many_who_come_at_once_share_one_look_which_ends_with_the_last_of_them() -> None:
    page, watches = Page(), Watches()
    streams: list[Events] = [watches.events("mesh", page.look, EVERY_S) for _ in range(WATCHERS)]
    async with asyncio.timeout(DEADLINE_S):
        first = await asyncio.gather(*(anext(stream) for stream in streams))
        assert all(first) and len(looking()) == 1
        for stream in streams:
            await stream.aclose()
    assert not looking()


async def test_a_look_that_fails_ends_all_who_watch_and_the_next_one_looks_anew() -> None:
    page, watches = Page(), Watches()
    streams: list[Events] = [watches.events("mesh", page.look, EVERY_S) for _ in range(3)]
    async with asyncio.timeout(DEADLINE_S):
        for stream in streams:
            await anext(stream)
        page.failure = BrokerUnavailable("the broker is away")
        for stream in streams:
            with pytest.raises(BrokerUnavailable):
                while True:  # one comes when the look has failed already
                    await anext(stream)
        page.failure = None
        again: Events = watches.events("mesh", page.look, EVERY_S)
        assert await anext(again)
        await again.aclose()
    assert not looking()
