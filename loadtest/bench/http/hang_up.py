"""How long an agent, or a pipeline, goes on after a client of the gateway has hung up, as it says itself.

A client closes its connection while its text is generated, or while a long prompt is read. The agent's event
`task_cancelled` says when the model's slot was free again; both clocks are this machine's. What is asked: an
instant model that answers slowly, and a large one that really generates; streamed and plain; by each dialect,
and as OpenAI's own clients ask, whose work goes on for `retry_grace_s` in case they try again. Clients hang
up one right after another: none of them may make the next one's agent slower.

The large model is asked in two stages too, while its prompt is read: there the time runs until both stages
have said in their beats, four a second, that they have nothing to do.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from nats.aio.msg import Msg

from infra.broker.local_cluster import free_port
from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.http.http_client import http_connection, require, until_listening
from loadtest.bench.inference.pipeline_nodes import MODEL as SPLIT
from loadtest.bench.inference.pipeline_nodes import Nodes
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_most
from schemas import subjects
from schemas.events import ANY_EVENT, AnyEvent, Event, TaskCancelled, TaskCompleted, TaskPulled
from schemas.pipelines.stages import StageBeat
from services.chassis.process.limits import cores

PACED, LARGE = "paced", "large"
REPLY = " ".join(f"word{number}" for number in range(400))
PACED_MS = 40_000
PAUSE_S = 0.3
"""So long a text is generated before its client hangs up."""
TURNS = {PACED: 20, LARGE: 6, SPLIT: 3}
NODES = ("node-0", "node-1")
SPLIT_SIZE = {"slots": 2, "context_tokens": 4096}
POLL_S = 0.05
EVENT_DEADLINE_S = 120.0
LIMIT_S = 1.0
LONGEST = 2_000
SHORT = "What is the capital of France?"
LONG = "the in an er " * 440
"""A prompt that takes seconds to read."""
RETRIES = (("x-stainless-retry-count", "0"),)

EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True)
class Asked:
    """A way to ask: where, with which fields besides the model's, and with which headers."""

    name: str
    path: str
    fields: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


def ways(prompt: str = SHORT) -> tuple[Asked, ...]:
    """All ways to ask a prompt."""
    messages = [{"role": "user", "content": prompt}]
    chat = {"messages": messages, "max_tokens": LONGEST, "temperature": 0}
    ollama = {"messages": messages, "options": {"num_predict": LONGEST, "temperature": 0}}
    found = []
    for kind, stream in (("stream", True), ("plain", False)):
        openai = {**chat, "stream": stream}
        responses = {"input": prompt, "max_output_tokens": LONGEST, "temperature": 0, "stream": stream}
        found += [
            Asked(f"ollama {kind}", "/api/chat", {**ollama, "stream": stream}),
            Asked(f"openai {kind}", "/v1/chat/completions", openai),
            Asked(f"openai's client {kind}", "/v1/chat/completions", openai, RETRIES),
            Asked(f"openai responses {kind}", "/v1/responses", responses),
            Asked(f"anthropic {kind}", "/v1/messages", openai),
        ]
    return tuple(found)


async def measure(folder: Path) -> dict[str, Any]:
    """Seconds from each hang-up to the end of the agent's work."""
    port = free_port()
    async with bench_mesh(folder, (PACED, LARGE, SPLIT)) as mesh:
        for service in ("router", "aggregator"):
            mesh.spawn(f"services.{service}")
        mesh.spawn_agent(PACED, slots=4, reply=REPLY, delay_ms=PACED_MS)
        path = await asyncio.to_thread(write_bench_model)
        mesh.spawn_llama_agent({"name": LARGE, "path": str(path), "slots": 2}, threads=1)
        await mesh.wait_ready((PACED, LARGE))
        mesh.spawn("services.gateway", env={"CHOIR_GATEWAY__PORT": str(port)})
        await until_listening(port)
        told = await mesh.connection.subscribe(subjects.events_of("agent"))
        events = _events(told.messages)
        stops: dict[str, list[float]] = {}
        for model in (PACED, LARGE):
            for _ in range(TURNS[model]):
                for asked in ways():
                    took = stops.setdefault(f"{model}, {asked.name}", [])
                    took.append(await _stop_s(port, model, asked, events))
        for _ in range(TURNS[LARGE]):
            for asked in ways(LONG):
                took = stops.setdefault(f"{LARGE}, prompt is read, {asked.name}", [])
                took.append(await _stop_s(port, LARGE, asked, events))
        stops |= await _split(mesh, path, folder / "slices", port)
    return {
        "median_s": {name: statistics.median(took) for name, took in stops.items()},
        "slowest_s": {name: max(took) for name, took in stops.items()},
    }


async def _split(mesh: BenchMesh, model: Path, slices: Path, port: int) -> dict[str, list[float]]:
    """Seconds from each hang-up to the end of the work of two stages."""
    pair, beats = Nodes(mesh, model, slices, SPLIT_SIZE), Beats()
    for number, name in enumerate(NODES):
        pair.start(name, number % cores())
    plan = await pair.place(*NODES)
    await mesh.connection.subscribe(subjects.stage_signal(plan.number), cb=beats.on_message)
    told = await mesh.connection.subscribe(subjects.events_of("shard_stage"))
    events = _events(told.messages)
    stops: dict[str, list[float]] = {}
    for _ in range(TURNS[SPLIT]):
        for asked in ways(LONG):
            left_s, _ = await _hung_up(port, SPLIT, asked, events)
            took = stops.setdefault(f"two stages, prompt is read, {asked.name}", [])
            took.append(await beats.rest_s(left_s))
    return stops


class Beats:
    """What stages say, and when that came."""

    def __init__(self) -> None:
        self._heard: dict[int, list[tuple[float, bool]]] = {}

    async def on_message(self, msg: Msg) -> None:
        """Notes a beat."""
        beat = StageBeat.read(msg.data)
        self._heard.setdefault(beat.stage, []).append((time.time(), beat.idle))

    async def rest_s(self, left_s: float) -> float:
        """Waits until all stages have nothing to do; for how many seconds after `left_s` they had."""
        async with asyncio.timeout(EVENT_DEADLINE_S):
            while (found := self._resting_since(left_s)) is None:  # noqa: ASYNC110  (beats come meanwhile)
                await asyncio.sleep(POLL_S)
        return found - left_s

    def _resting_since(self, left_s: float) -> float | None:
        since = []
        for heard in self._heard.values():
            beats = [(at_s, idle) for at_s, idle in heard if at_s > left_s]
            runs = pairwise(beats)
            rests = [at_s for (at_s, idle), (_, idle_again) in runs if idle and idle_again]
            if not rests:
                return None
            since.append(rests[0])
        return max(since) if len(since) == len(NODES) else None


async def _events(messages: AsyncIterator[Any]) -> AsyncIterator[AnyEvent]:
    async for message in messages:
        yield ANY_EVENT.validate_json(message.data)


async def _stop_s(port: int, model: str, asked: Asked, events: AsyncIterator[AnyEvent]) -> float:
    """Asks, hangs up in the midst, and waits for what the agent says: seconds until it has stopped."""
    left_s, pulled = await _hung_up(port, model, asked, events)
    async with asyncio.timeout(EVENT_DEADLINE_S):
        ended = await _next(events, TaskCancelled, TaskCompleted)
    require(
        isinstance(ended, TaskCancelled) and ended.task_id == pulled.task_id,
        f"{asked.name}: the agent went on to its end",
    )
    return ended.at_s - left_s


async def _hung_up(
    port: int, model: str, asked: Asked, events: AsyncIterator[AnyEvent]
) -> tuple[float, TaskPulled]:
    """Asks, and hangs up in the midst: when, and what had been begun."""
    body = json.dumps({"model": model, **asked.fields}).encode()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(http_connection(port, asked.headers))
        reading = asyncio.create_task(_read(connection.stream(asked.path, body)))
        async with asyncio.timeout(EVENT_DEADLINE_S):
            pulled = await _next(events, TaskPulled)
        await asyncio.sleep(PAUSE_S)
        require(not reading.done(), f"{asked.name}: the text was there before anybody could hang up")
        reading.cancel()
        left_s = time.time()
    await asyncio.wait([reading])
    return left_s, pulled


async def _read(parts: AsyncIterator[bytes]) -> None:
    async for _ in parts:
        pass


async def _next(events: AsyncIterator[AnyEvent], *kinds: type[EventT]) -> EventT:
    """The next event of one of these kinds."""
    while True:
        event = await anext(events)
        if isinstance(event, kinds):
            return event


def run() -> Report:
    """Measures on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measure(Path(folder) / "mesh"))
    return Report(
        bench="hang-up",
        raw=found,
        targets=(at_most("slowest stop after a hang-up, s", max(found["slowest_s"].values()), LIMIT_S),),
        notes=(
            "From the close of the client's connection until the agent says that the slot is free.",
            "Two stages: until both say that they have nothing to do; they say so four times a second.",
        ),
    )
