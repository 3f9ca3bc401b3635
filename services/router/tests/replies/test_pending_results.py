"""PendingResults for results: nothing is missed, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from schemas import subjects
from schemas.errors import InternalError, Overloaded
from schemas.replies import Result
from services.chassis.nats.streams import Storage
from services.router import pending_results as pending_module
from services.router.pending_results import PendingResults


def result(request_id: str = "r1") -> Result:
    return Result.unreadable(request_id, Overloaded("full"), 1.0)


async def store(storage: Storage, request_id: str = "r1") -> Result:
    stored = result(request_id)
    await storage.store_once(subjects.result(request_id), stored.to_bytes())
    return stored


async def test_everybody_who_waits_for_a_result_gets_it_the_moment_it_is_stored(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "POLL_INTERVAL_S", 3600)
    storage = Storage(connection)
    pending = PendingResults(storage)
    await pending.start()
    with pending.register("r1") as one, pending.register("r1") as two, pending.register("r2") as other:
        stored = await store(storage)
        assert await pending.wait("r1", one, 180) == stored
        assert await pending.wait("r1", two, 180) == stored
        assert other.get(subjects.result("r2")) is None


async def test_a_result_that_passed_unheard_is_found_in_the_stream(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "POLL_INTERVAL_S", 0.05)
    storage = Storage(connection)
    pending = PendingResults(storage)  # it has not been started: it hears nothing
    with pending.register("r1") as waiter:
        looking = asyncio.create_task(pending.wait("r1", waiter, 180))
        stored = await store(storage)
        assert await looking == stored


async def test_the_result_of_another_request_is_not_given_to_anybody(connection: Client) -> None:
    storage = Storage(connection)
    pending = PendingResults(storage)
    await pending.start()
    with pending.register("r1") as waiter:
        await storage.store_once(subjects.result("r1"), result("r2").to_bytes())
        with pytest.raises(InternalError, match="belongs to another request"):
            await pending.wait("r1", waiter, 180)
    with pytest.raises(InternalError, match="belongs to another request"):
        await pending.stored("r1")


async def test_who_has_waited_long_enough_gets_nothing(connection: Client) -> None:
    pending = PendingResults(Storage(connection))
    await pending.start()
    started = time.monotonic()
    with pending.register("r1") as waiter:
        assert await pending.wait("r1", waiter, 0.2) is None
    assert time.monotonic() - started >= 0.2


async def test_a_result_that_comes_for_nobody_is_no_trouble(connection: Client) -> None:
    storage = Storage(connection)
    pending = PendingResults(storage)
    await pending.start()
    with pending.register("r1"):
        pass
    stored = await store(storage)
    with pending.register("r1") as waiter:
        assert await pending.wait("r1", waiter, 180) == stored
