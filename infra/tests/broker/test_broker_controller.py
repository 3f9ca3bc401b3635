"""What a host sees of its broker's disk, and what it does about a broker that stores no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client

from infra.broker import broker_controller
from infra.broker.broker import Broker
from infra.broker.broker_controller import BrokerController
from infra.broker.provision import provision_at
from infra.testing.mesh import eventually
from infra.testing.plugin import connect, fill_disk
from schemas import subjects
from services.chassis.process.cancelling import ended
from services.chassis.registry.directory import Directory

MOST_BYTES = 2**62
LARGE = bytes(500_000)


@asynccontextmanager
async def watched(broker: Broker, min_free_bytes: int, said: list[str]) -> AsyncIterator[Directory]:
    """A broker as `choir up` looks after it, and who looks at its mesh. `said` is what is told on the way."""
    client, looking = await connect(broker.url), await connect(broker.url)
    directory = Directory(looking)
    await directory.start()
    controller = BrokerController(broker, "mac", min_free_bytes, said.append)
    keeping = asyncio.create_task(controller.keep_storing(client))
    try:
        yield directory
    finally:
        await ended([keeping])
        await client.close()
        await looking.close()


def problems(directory: Directory) -> str:
    """What is wrong with the mesh."""
    return "; ".join(node.problem.message for node in directory.nodes if node.problem is not None)


async def stores(client: Client) -> bool:
    """Whether a large message is stored."""
    with contextlib.suppress(nats.errors.Error):
        await client.jetstream(timeout=1.0).publish(subjects.dead("agent", "r1"), LARGE)
        return True
    return False


async def test_a_disk_that_is_nearly_full_is_told_while_all_is_stored(own_broker: Broker) -> None:
    said: list[str] = []
    async with watched(own_broker, MOST_BYTES, said) as directory:
        await eventually(lambda: "the broker's disk is nearly full" in problems(directory))
        assert "make room before nothing can be stored" in problems(directory)
        pid = own_broker.pid
        client = await connect(own_broker.url)
        assert await eventually(lambda: stores(client))
        await client.close()
    assert own_broker.pid == pid
    assert len(said) == 1, "it is told once, and not at each look"


async def test_a_broker_whose_disk_was_full_is_started_anew_as_soon_as_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_controller, "CANARY_PATIENCE_S", 0.5)
    monkeypatch.setattr(broker_controller, "PAUSE_AFTER_FULL_S", 0.5)
    said: list[str] = []
    async with Broker(disk / "store", prepare=lambda url: provision_at(url, ())) as broker:
        client = await connect(broker.url)
        async with watched(broker, 0, said) as directory:
            assert await eventually(lambda: stores(client))
            filler, pid = await asyncio.to_thread(fill_disk, disk), broker.pid
            await eventually(lambda: "the broker's disk is full" in problems(directory))

            async def stores_no_more() -> bool:
                return not await stores(client) and broker.write_error is not None

            await eventually(stores_no_more)
            assert broker.pid == pid, "to start it anew would be of no use yet"
            filler.unlink()
            await eventually(lambda: stores(client))
            assert broker.pid != pid
            await eventually(lambda: said[-1] == "the broker stores again, and there is room")
        await client.close()
    assert any("has stopped storing, and is started again" in line for line in said)
