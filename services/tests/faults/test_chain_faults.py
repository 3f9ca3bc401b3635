"""Agent, summarizer and router are killed while chains are on their way: each has exactly one result."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig

from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.broker import catalog
from schemas.errors import MeshUnreachable
from schemas.replies import Result
from services.client.client import Choir
from services.tests.load import eventually

pytestmark = pytest.mark.long

MODELS = ("alpha", "beta")
CHAINS = 40
SPREAD_S = 2.0
PATIENCE_S = 180.0
SETTLE_S = 180.0
ACK_WAIT_S = 6.0
"""Half of what the catalog says, and still longer than the pause between two signs of life (4 s)."""


class ChainMesh:
    """A router, a summarizer and two agents that both serve both models."""

    def __init__(self, spawn: SpawnService, url: str) -> None:
        self._spawn = spawn
        self.router = spawn("router", "router-1", url=url)
        self.summarizer = spawn("summarizer", "summarizer-1", url=url)
        models = [{"name": model, "slots": 8, "reply": f"{model} wrote", "delay_ms": 40} for model in MODELS]
        self.agents = [
            spawn("agent", name, url=url, agent={"name": name, "backend": "instant", "models": models})
            for name in ("agent-1", "agent-2")
        ]
        self._url = url

    async def wait_ready(self, connection: Client) -> None:
        """Returns when every process says that it is ready."""
        for service in (self.router, self.summarizer, *self.agents):
            await service.wait_ready(connection)

    def kill_and_start_again(self, service: ServiceProcess) -> None:
        """What a crash and a supervisor do."""
        service.kill()
        self._spawn(service.service, service.instance, url=self._url)


async def redeliver_sooner(connection: Client) -> None:
    """The work of the dead is handed on after `ACK_WAIT_S`, so that the test waits less than users do."""
    js = connection.jetstream()
    for spec in catalog.consumers(MODELS):
        if spec.stream == subjects.COMMANDS_STREAM:
            info = await js.consumer_info(spec.stream, spec.name)
            config: ConsumerConfig = info.config
            await js.add_consumer(spec.stream, config.evolve(ack_wait=ACK_WAIT_S))


async def test_whoever_is_killed_every_chain_has_exactly_one_result(
    mesh_url: str, connection: Client, spawn_service: SpawnService, fault_seed: int
) -> None:
    chance = random.Random(fault_seed)
    mesh = ChainMesh(spawn_service, mesh_url)
    await redeliver_sooner(connection)
    await mesh.wait_ready(connection)

    async with Choir(mesh_url) as client:

        async def ask(number: int) -> Result:
            await asyncio.sleep(chance.uniform(0, SPREAD_S))
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    # On a busy machine a router may take longer to start than a client waits for one.
                    with contextlib.suppress(MeshUnreachable):
                        return await client.ask(
                            f"question {number}",
                            request_id=f"chain-{number}",
                            model="alpha",
                            summarize_with=("beta", "alpha") if number % 2 else ("beta",),
                            timeout_s=PATIENCE_S,
                        )

        async def kill() -> None:
            for victim in chance.sample(["agent", "summarizer", "router"], 3):
                await asyncio.sleep(chance.uniform(0.1, 0.3) * SPREAD_S)
                if victim == "agent":
                    mesh.agents[0].kill()
                else:
                    mesh.kill_and_start_again(mesh.router if victim == "router" else mesh.summarizer)

        *results, _ = await asyncio.gather(*map(ask, range(CHAINS)), kill())

    for number, result in enumerate(filter(None, results)):
        peers = ("alpha", "beta", "alpha") if number % 2 else ("alpha", "beta")
        assert [answer.text for answer in result.answers] == [f"{peer} wrote" for peer in peers]
        assert (result.topology, result.text) == ("chain", f"{peers[-1]} wrote")
    await assert_one_result_each(connection)


async def assert_one_result_each(connection: Client) -> None:
    """In the streams: a result for each chain, and nothing left to do."""
    js = connection.jetstream()
    info = await js.stream_info(subjects.RESULTS_STREAM, subjects_filter=subjects.ALL_RESULTS)
    assert info.state.subjects == {subjects.result(f"chain-{number}"): 1 for number in range(CHAINS)}

    async def nothing_queued() -> bool:
        return (await js.stream_info(subjects.COMMANDS_STREAM)).state.messages == 0

    assert await eventually(nothing_queued, SETTLE_S), "commands are left in the queue"
