"""Stages that are far from their broker: texts are the same, only later."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlparse

import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.broker.provision import provision_at
from infra.testing.made_models.variants import demo_model
from infra.testing.plugin import SpawnService, connect
from services.shard_stage.tests.helpers.pipeline_mesh import PipelineMesh
from services.shard_stage.tests.pipeline.test_line import GREEDY, QUESTIONS, engine_says

pytestmark = pytest.mark.long

DELAY_S = 0.005
READ_BYTES = 64 * 1024
NAMESPACES = {"choir-ns-1": "10.213.1", "choir-ns-2": "10.213.2"}


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slices")


@asynccontextmanager
async def far_away(url: str) -> AsyncIterator[str]:
    """Another way to the same broker, on which everything takes DELAY_S longer in both directions."""
    target, tasks = urlparse(url), set[asyncio.Task[None]]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while block := await reader.read(READ_BYTES):
            loop.call_later(DELAY_S, writer.write, block)
        loop.call_later(DELAY_S, writer.close)

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_broker = await asyncio.open_connection(target.hostname, target.port)
        both = [carry(reader, to_broker[1]), carry(to_broker[0], writer)]
        tasks.update(asyncio.create_task(way) for way in both)

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.soak
async def test_stages_with_a_slow_way_to_the_broker_answer_as_the_engine(
    connection: Client, mesh_url: str, spawn_service: SpawnService, slices: Path
) -> None:
    model = demo_model("llama")
    expected = [finished.text for finished in engine_says(model, QUESTIONS, GREEDY)]
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, slices)
    async with far_away(mesh_url) as one, far_away(mesh_url) as other:
        for process in (mesh.start("stage-a", url=one), mesh.start("stage-b", url=other)):
            await process.wait_ready(connection)
        await mesh.place("stage-a", "stage-b")
        results = await mesh.ask_all(QUESTIONS, GREEDY, "far")
        lease = await mesh.lease("stage-b")
        for process in mesh.instances.values():
            await process.stop()

    assert [result.text for result in results] == expected
    assert lease is not None and lease.stage is not None
    assert lease.stage.hop_ms > 2 * DELAY_S * 1000


def ip(*arguments: str) -> None:
    """Runs a command of iproute2; CalledProcessError with what it said."""
    subprocess.run(arguments, check=True, capture_output=True, text=True)


@contextmanager
def namespaces() -> Iterator[None]:
    """Two network namespaces that reach this one by a link each, on which packets take 5 ms. Skips the test,
    with the reason, where they cannot be made."""
    try:
        for number, (name, net) in enumerate(NAMESPACES.items()):
            ip("ip", "netns", "add", name)
            ip("ip", "link", "add", f"choir{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("ip", "addr", "add", f"{net}.1/24", "dev", f"choir{number}")
            ip("ip", "link", "set", f"choir{number}", "up")
            ip("ip", "-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0")
            ip("ip", "-n", name, "link", "set", "eth0", "up")
            ip("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "5ms")
        yield
    except FileNotFoundError:
        pytest.skip("needs ip and tc (iproute2)")
    except subprocess.CalledProcessError:
        pytest.skip("needs a user who may make network namespaces, and a kernel with netem (sch_netem)")
    finally:
        for number, name in enumerate(NAMESPACES):
            if shutil.which("ip"):
                subprocess.run(["ip", "link", "del", f"choir{number}"], capture_output=True, check=False)
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


async def test_stages_in_two_network_namespaces_answer_as_the_engine(
    spawn_service: SpawnService, slices: Path, tmp_path: Path
) -> None:
    model = demo_model("llama")
    expected = [finished.text for finished in engine_says(model, QUESTIONS, GREEDY)]
    with namespaces():
        broker = Broker(tmp_path / "broker", host="0.0.0.0", prepare=lambda url: provision_at(url, ["alpha"]))
        async with broker:
            connection = await connect(broker.url)
            mesh = PipelineMesh(spawn_service, connection, broker.url, model, slices)
            for instance, (name, net) in zip(("stage-a", "stage-b"), NAMESPACES.items(), strict=True):
                command = ["ip", "netns", "exec", name, sys.executable, "-m", "services.shard_stage"]
                mesh.start(instance, url=f"nats://{net}.1:{broker.port}", command=command)
            await mesh.place("stage-a", "stage-b")
            results = await mesh.ask_all(QUESTIONS, GREEDY, "namespaces")
            for process in mesh.instances.values():
                await process.stop()
            await connection.close()
    assert [result.text for result in results] == expected
