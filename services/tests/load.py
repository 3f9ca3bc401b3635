"""A load of requests for tests that break things, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from nats.aio.client import Client

from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.replies import Result
from services.chassis.nats.streams import Storage
from services.client.client import Choir

MODELS = ("alpha", "beta", "gamma", "delta")
REQUESTS = 60
SPREAD_S = 2.5
ANSWER_DELAY_MS = 40.0
PATIENCE_S = 180.0
SETTLE_S = PATIENCE_S + 60.0
"""A broker that was killed may still hold a command that its consumer counts as acknowledged (nats-server
2.15, after one of some two hundred kills on a busy machine): nobody is given it, and it goes when its time is
over."""

Fault = Callable[[], Awaitable[None]]


class SmallMesh:
    """A router, an aggregator and two agents that both serve all four models, each in its own process."""

    def __init__(self, spawn: SpawnService, url: str) -> None:
        self._spawn = spawn
        self.url = url
        self.router = spawn("router", "router-1", url=url)
        self.aggregator = spawn("aggregator", "aggregator-1", url=url)
        self.agents = [self.start_agent(f"agent-{n}") for n in (1, 2)]

    def start_agent(self, name: str) -> ServiceProcess:
        """One more agent for all models."""
        models = [
            {"name": model, "slots": 4, "reply": f"{model} says Paris", "delay_ms": ANSWER_DELAY_MS}
            for model in MODELS
        ]
        agent = {"name": name, "backend": "instant", "models": models}
        return self._spawn("agent", name, url=self.url, agent=agent)

    def start_again(self, service: ServiceProcess) -> ServiceProcess:
        """The same service under the same name, as a supervisor would."""
        return self._spawn(service.service, service.instance, url=self.url)

    async def wait_ready(self, connection: Client) -> None:
        """Returns when every process says that it is ready."""
        for service in (self.router, self.aggregator, *self.agents):
            await service.wait_ready(connection)


async def run_under_load(mesh: SmallMesh, fault: Fault, seed: int) -> list[Result]:
    """Asks a mix of single models and ensembles, and lets `fault` happen at a random moment of it."""
    chance = random.Random(seed)
    async with Choir(mesh.url) as client:

        async def ask(number: int, after_s: float) -> Result:
            await asyncio.sleep(after_s)
            strategies = () if number % 2 else ("majority", "weighted")
            return await client.ask(
                f"question {number}: what is the capital of France?",
                request_id=f"load-{number}",
                model=MODELS[number % 4] if number % 2 else None,
                strategies=strategies,
                timeout_s=PATIENCE_S,
            )

        async def break_something() -> None:
            await asyncio.sleep(chance.uniform(0.3, 0.8) * SPREAD_S)
            await fault()

        asks = [ask(number, chance.uniform(0, SPREAD_S)) for number in range(REQUESTS)]
        *results, _ = await asyncio.gather(*asks, break_something())
    return [result for result in results if result is not None]


async def assert_each_has_one_result(connection: Client, results: list[Result]) -> None:
    """Every request was answered, by the one result that is stored for it, and nothing is left to do."""
    js = connection.jetstream()
    assert sorted(result.request_id for result in results) == sorted(f"load-{n}" for n in range(REQUESTS))
    info = await js.stream_info(subjects.RESULTS_STREAM, subjects_filter=subjects.ALL_RESULTS)
    assert info.state.subjects == {subjects.result(f"load-{n}"): 1 for n in range(REQUESTS)}
    storage = Storage(connection)
    for result in results:
        assert result.error is None
        assert result.text is not None and result.text.endswith("says Paris")
        stored = await storage.last(subjects.RESULTS_STREAM, subjects.result(result.request_id))
        assert stored is not None and Result.model_validate_json(stored.data) == result

    async def nothing_queued() -> bool:
        return (await js.stream_info(subjects.COMMANDS_STREAM)).state.messages == 0

    assert await eventually(nothing_queued, SETTLE_S), await _left_over(connection)


async def _left_over(connection: Client) -> str:
    """What is in the queue, and what its consumers are waiting for."""
    js = connection.jetstream()
    stream = subjects.COMMANDS_STREAM
    left = (await js.stream_info(stream, subjects_filter=">")).state
    consumers = [
        f"{info.name}: delivered {info.delivered}, acknowledged {info.ack_floor}, "
        f"open {info.num_ack_pending}, "
        f"redelivered {info.num_redelivered}, to come {info.num_pending}, asked {info.num_waiting}"
        for info in await js.consumers_info(stream)
    ]
    return f"commands are left in the queue: {left}\n" + "\n".join(consumers)


async def eventually(condition: Callable[[], Awaitable[bool]], deadline_s: float) -> bool:
    """Whether a condition becomes true in time."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await condition():  # noqa: ASYNC110  (the condition is asked of the broker)
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    return True


__all__ = ["MODELS", "SmallMesh", "assert_each_has_one_result", "eventually", "run_under_load"]
