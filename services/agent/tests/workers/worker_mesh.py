"""Agents with external workers in the test's own loop, and servers that do what a test says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client

from infra.testing.mesh import eventually, open_mesh, settled
from schemas import subjects
from schemas.nodes.lease import ServedModel
from schemas.nodes.workers import Worker, WorkerState
from schemas.replies import Result
from services.agent.service import Agent
from services.agent.settings import AgentSection, WorkersSection
from services.agent.tests.servers.http_server import HttpServer, Reply, Request
from services.chassis.context import ServiceContext
from services.chassis.registry.lease import Lease

MODEL = "alpha"
QUICK = WorkersSection(
    check_interval_s=0.2,
    check_limit_s=5,
    trial_limit_s=5,
    failures_to_open=2,
    open_for_s=0.2,
    open_for_longest_s=0.4,
    stand_back_s=1.0,
    stall_limit_s=20,
)
SSE = "text/event-stream"


def worker(server: HttpServer, worker_id: str = "mac-1", **fields: Any) -> Worker:
    """A worker of type lm_studio at a server of the test's."""
    defaults: dict[str, Any] = {"type": "lm_studio", "host": "127.0.0.1", "model": MODEL, "slots": 2}
    return Worker(id=worker_id, port=server.port, **(defaults | fields))


async def register(client: Client, *workers: Worker) -> None:
    """Puts workers where the router does."""
    bucket = await client.jetstream().key_value(subjects.WORKERS_BUCKET)
    for entry in workers:
        await bucket.put(subjects.worker_key(entry.id), entry.to_bytes())


async def unregister(client: Client, worker_id: str) -> None:
    """Removes a worker as the router does."""
    bucket = await client.jetstream().key_value(subjects.WORKERS_BUCKET)
    await bucket.delete(subjects.worker_key(worker_id))


@asynccontextmanager
async def host(
    client: Client, instance: str = "agent-1", settings: WorkersSection = QUICK
) -> AsyncIterator[Agent]:
    """An agent without models of its own, with its lease."""
    async with host_on(open_mesh(client, "agent", instance), settings) as agent:
        yield agent


@asynccontextmanager
async def host_on(mesh: ServiceContext, settings: WorkersSection = QUICK) -> AsyncIterator[Agent]:
    """The same, on a mesh of the test's."""
    agent = Agent(AgentSection(name="host"), settings)
    await agent.start(mesh)
    lease = Lease(mesh.client, mesh.identity, agent.load)
    await lease.start()
    await settled(mesh.client)
    try:
        yield agent
    finally:
        await lease.stop()
        await agent.stop()


def served(agent: Agent, worker_id: str = "mac-1") -> ServedModel | None:
    """What an agent's lease says of a worker."""
    models = (model for model in agent.load().models if model.worker and model.worker.id == worker_id)
    return next(models, None)


def state_of(agent: Agent, worker_id: str = "mac-1") -> WorkerState | None:
    """The worker's own state."""
    model = served(agent, worker_id)
    return model.worker if model else None


async def usable(agent: Agent, *worker_ids: str) -> None:
    """Returns when the agent gives work to the workers."""

    def ready() -> bool:
        found = [served(agent, worker_id) for worker_id in worker_ids or ("mac-1",)]
        return all(model is not None and model.problem is None for model in found)

    await eventually(ready)


async def result_of(client: Client, request_id: str) -> Result:
    """The result of a request, once it is there."""
    storage = open_mesh(client).storage

    async def find() -> Result | None:
        stored = await storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        return None if stored is None else Result.model_validate_json(stored.data)

    return await eventually(find)


# --- servers -----------------------------------------------------------------------------


class LmStudio:
    """Speaks enough of the OpenAI API to be a worker, and misbehaves as a test says.

    `mood` is what it does with a chat: "well", "500", "hang" (a head, and then nothing), "half" (breaks off
    in the midst of a text), "garbage", "html", "slow" (a word every 50 ms). A list of models is held back
    while `may_list` is not set, and an answer to a chat while `may_chat` is not.
    """

    def __init__(self, text: str = "the tall giraffe", mood: str = "well") -> None:
        self.text = text
        self.mood = mood
        self.lists_models = True
        self.may_list = asyncio.Event()
        self.may_list.set()
        self.asked_for_list = asyncio.Event()
        self.may_chat = asyncio.Event()
        self.may_chat.set()
        self.began = asyncio.Event()
        self.chats = 0

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answers one request."""
        if request.path == "/v1/models" and self.lists_models:
            self.asked_for_list.set()
            await self.may_list.wait()
            await reply.json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif request.path == "/v1/chat/completions":
            self.chats += 1
            self.began.set()
            await self.may_chat.wait()
            await self._chat(request, reply)
        else:
            await reply.whole(b"<html>gone fishing</html>", 200, "text/html")

    async def _chat(self, request: Request, reply: Reply) -> None:
        match self.mood:
            case "500":
                await reply.json({"error": {"message": "out of memory"}}, 500)
            case "html":
                await reply.whole(b"<html>Welcome</html>", 200, "text/html")
            case "garbage":
                await reply.whole(b"data: {]\n\ndata: \xff\xfe\n\n", 200, SSE)
            case "hang":
                await reply.begin_chunks(SSE)
                await asyncio.Event().wait()
            case _:
                await self._stream(request.json["max_tokens"], reply)

    async def _stream(self, limit: int, reply: Reply) -> None:
        await reply.begin_chunks(SSE)
        await reply.chunk(event({"delta": {"role": "assistant"}}))
        words = self.text.split(" ")[:limit]
        for index, word in enumerate(words):
            await reply.chunk(event({"delta": {"content": f" {word}" if index else word}}))
            if self.mood == "half":
                return
            await asyncio.sleep(0.05 if self.mood == "slow" else 0)
        await reply.chunk(event({"delta": {}, "finish_reason": "stop"}))
        usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)}
        await reply.chunk(event(None, usage))
        await reply.chunk(b"data: [DONE]\n\n")
        await reply.chunk(b"")


def event(choice: dict[str, Any] | None, usage: dict[str, int] | None = None) -> bytes:
    """One server-sent event of a chat completion."""
    choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": MODEL,
        "choices": choices,
        **({"usage": usage} if usage else {}),
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()
