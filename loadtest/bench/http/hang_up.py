"""How long an agent goes on after a client of the gateway has hung up: by the agent's own events.

A client closes its connection while its text is generated, or while a long prompt is read. The agent's event
`task_cancelled` says when the model's slot was free again; both clocks are this machine's. What is asked: an
instant model that answers slowly, and a large one that really generates; streamed and plain; by each dialect,
and as OpenAI's own clients ask, whose work goes on for `retry_grace_s` in case they try again. Clients hang
up one right after another: none of them may make the next one's agent slower.
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
from pathlib import Path
from typing import Any

import uvloop

from infra.broker.local_cluster import free_port
from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.http.http_client import http_connection, require, until_listening
from loadtest.bench.processes import bench_mesh
from loadtest.bench.report import Report, at_most
from schemas import subjects
from schemas.events import ANY_EVENT, AnyEvent, TaskCancelled, TaskCompleted, TaskPulled

PACED, LARGE = "paced", "large"
REPLY = " ".join(f"word{number}" for number in range(400))
PACED_MS = 40_000
PAUSE_S = 0.3
"""So long a text is generated before its client hangs up."""
TURNS = {PACED: 20, LARGE: 6}
EVENT_DEADLINE_S = 120.0
LIMIT_S = 1.0
LONGEST = 2_000
SHORT = "What is the capital of France?"
LONG = "the in an er " * 440
"""A prompt that takes seconds to read."""
RETRIES = (("x-stainless-retry-count", "0"),)


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
    async with bench_mesh(folder, (PACED, LARGE)) as mesh:
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
    return {
        "median_s": {name: statistics.median(took) for name, took in stops.items()},
        "slowest_s": {name: max(took) for name, took in stops.items()},
    }


async def _events(messages: AsyncIterator[Any]) -> AsyncIterator[AnyEvent]:
    async for message in messages:
        yield ANY_EVENT.validate_json(message.data)


async def _stop_s(port: int, model: str, asked: Asked, events: AsyncIterator[AnyEvent]) -> float:
    """Asks, hangs up in the midst, and waits for what the agent says: seconds until it has stopped."""
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
    async with asyncio.timeout(EVENT_DEADLINE_S):
        ended = await _next(events, TaskCancelled, TaskCompleted)
    await asyncio.wait([reading])
    require(
        isinstance(ended, TaskCancelled) and ended.task_id == pulled.task_id,
        f"{asked.name}: the agent went on to its end",
    )
    return ended.at_s - left_s


async def _read(parts: AsyncIterator[bytes]) -> None:
    async for _ in parts:
        pass


async def _next(events: AsyncIterator[AnyEvent], *kinds: type[AnyEvent]) -> AnyEvent:
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
        notes=("From the close of the client's connection until the agent says that the slot is free.",),
    )
