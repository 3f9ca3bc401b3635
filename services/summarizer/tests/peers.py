"""Peers that say what the test wants and count words as tokens, and a summarizer in the test's own loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client

from infra.testing.mesh import eventually, open_mesh, settled
from schemas import subjects
from schemas.commands import ChatMessage, CountTokens, Generate, Summarize
from schemas.errors import ChoirError
from schemas.nodes.lease import ServedModel
from schemas.replies import Answer, Result, Timings, TokenCount
from schemas.requests.sampling import Sampling
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.registry.lease import Lease, Load
from services.chassis.work.delivery import Delivery
from services.chassis.work.loop import WorkLoop
from services.summarizer.service import Summarizer
from services.summarizer.settings import SummarizerSection

Said = str | ChoirError | None
Says = Callable[[str], Said]
"""What a peer answers to a prompt; None if it never does."""
CONTEXT_TOKENS = 100
TEMPLATE = "Summarize: {text}"
WORK = Timings(
    total_duration_ns=3_000_000, load_duration_ns=1, prompt_eval_duration_ns=2, eval_duration_ns=10**9
)


def words(text: str) -> int:
    """How many tokens a text is for these peers."""
    return len(text.split())


class Peer:
    """Answers the tasks of one model, and remembers which it was asked."""

    def __init__(self, mesh: ServiceContext, name: str, says: Says, context_tokens: int | None) -> None:
        self._mesh = mesh
        self._says = says
        self.name = name
        self.context_tokens = context_tokens
        self.asked: list[Generate] = []
        self.loop = WorkLoop(
            mesh,
            Generate,
            subjects.COMMANDS_STREAM,
            [subjects.generate_consumer(priority, name) for priority in subjects.PRIORITIES],
            16,
            self,
        )

    @property
    def prompts(self) -> list[str]:
        """What it was asked, in order."""
        return [command.messages[-1].content for command in self.asked]

    async def handle(self, command: Generate, _delivery: Delivery) -> None:
        self.asked.append(command)
        said = self._says(command.messages[-1].content)
        if said is not None:
            await store_answer(self._mesh, command, said)

    async def on_failure(self, command: Generate, error: ChoirError) -> None:
        raise AssertionError(f"{command.task_id}: {error.message}")

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        raise AssertionError(f"{request_id}: {error.message}")

    async def count(self, request: CountTokens, caller: Caller) -> None:
        prompt_tokens = sum(words(message.content) for message in request.messages)
        context_tokens = self.context_tokens or CONTEXT_TOKENS
        await caller.send(TokenCount(prompt_tokens=prompt_tokens, context_tokens=context_tokens))


async def store_answer(mesh: ServiceContext, command: Generate, said: str | ChoirError) -> None:
    """Does what an agent does at the end of a task."""
    if isinstance(said, ChoirError):
        answer = Answer.failed(command, said, mesh.identity.instance)
    else:
        answer = Answer(
            request_id=command.request_id,
            round=command.round,
            agent=command.agent,
            model=command.model,
            instance=mesh.identity.instance,
            text=said,
            finish_reason="stop",
            prompt_tokens=words(command.messages[-1].content),
            generated_tokens=words(said),
            timings=WORK,
        )
    subject = subjects.answer(command.request_id, command.round, command.agent)
    await mesh.storage.store_once(subject, answer.to_bytes())


@asynccontextmanager
async def present(
    client: Client, says: Mapping[str, Says], context_tokens: int | None = CONTEXT_TOKENS
) -> AsyncIterator[dict[str, Peer]]:
    """Peers that work for as long as the context is open, on a connection of their own, with a lease."""
    connection = await nats.connect(client.connected_url.geturl() if client.connected_url else "")
    mesh = open_mesh(connection, "agent", "agent-of-all")
    peers = {name: Peer(mesh, name, what, context_tokens) for name, what in says.items()}
    served = tuple(
        ServedModel(name=name, backend="instant", slots=16, context_tokens=context_tokens) for name in peers
    )
    lease = Lease(connection, mesh.identity, lambda: Load(models=served))
    endpoints = Endpoints(connection, mesh.identity, "peers of a test")
    await endpoints.start()
    for peer in peers.values():
        await endpoints.add(subjects.count_tokens(peer.name), CountTokens, peer.count)
        await peer.loop.start()
    await lease.start()
    await settled(connection)
    try:
        yield peers
    finally:
        await asyncio.gather(*(peer.loop.stop() for peer in peers.values()))
        await endpoints.stop()
        await lease.stop()
        await connection.close()


@asynccontextmanager
async def summarizing(client: Client, **settings: Any) -> AsyncIterator[ServiceContext]:
    """A summarizer that works for as long as the context is open."""
    mesh = open_mesh(client, "summarizer")
    summarizer = Summarizer(SummarizerSection(**({"poll_interval_s": 0.2} | settings)))
    await summarizer.start(mesh)
    await settled(client)
    try:
        yield mesh
    finally:
        await summarizer.stop()


def chain(request_id: str, *peers: str, timeout_s: float = 60.0, **fields: Any) -> Summarize:
    """A chain that anybody would take along."""
    now_s = time.time()
    defaults: dict[str, Any] = {
        "messages": (ChatMessage(role="user", content="What is the tallest animal?"),),
        "summary_prompt": TEMPLATE,
        "sampling": Sampling(max_tokens=40),
        "fingerprint": "f",
        "accepted_at_s": now_s,
        "deadline_at_s": now_s + timeout_s,
    }
    return Summarize(request_id=request_id, peers=peers, **(defaults | fields))


async def enqueue_chain(mesh: ServiceContext, command: Summarize) -> None:
    """Does what the router does."""
    subject = subjects.summarize(command.priority, command.request_id)
    await mesh.storage.enqueue(subject, command.to_bytes(), message_id=command.request_id)


async def result_of(mesh: ServiceContext, request_id: str) -> Result:
    """The result of a request, once it is there."""

    async def stored() -> Result | None:
        found = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        return None if found is None else Result.model_validate_json(found.data)

    return await eventually(stored)
