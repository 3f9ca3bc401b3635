"""Members of an ensemble that say what the test wants, and an aggregator in the test's own loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, in_time, open_mesh, settled
from schemas import subjects
from schemas.commands import Gather, Generate
from schemas.errors import ChoirError, DeadlineExceeded
from schemas.replies import Answer, Result, Topology
from services.aggregator.service import Aggregator
from services.aggregator.settings import AggregatorSection
from services.chassis.context import ServiceContext
from services.chassis.work.delivery import Delivery
from services.chassis.work.loop import WorkLoop

Answered = str | ChoirError | Answer | None
Said = Answered | Callable[[Generate], Answered]
"""What a member answers, or how it finds out; None if it never does."""


def answer(request_id: str, agent: str, said: str | ChoirError, round_: int = 1) -> Answer:
    """An answer as an agent stores it."""
    error = said.body(request_id) if isinstance(said, ChoirError) else None
    return Answer(
        request_id=request_id,
        round=round_,
        agent=agent,
        model=agent,
        instance=f"agent-of-{agent}",
        text="" if isinstance(said, ChoirError) else said,
        finish_reason="error" if error else "stop",
        error=error,
    )


async def store_answer(
    mesh: ServiceContext, request_id: str, agent: str, said: str | ChoirError, round_: int = 1
) -> None:
    """Stores an answer, once."""
    subject = subjects.answer(request_id, round_, agent)
    await mesh.storage.store_once(subject, answer(request_id, agent, said, round_).to_bytes())


class Member:
    """Answers every task of one model alike, and remembers which it was asked."""

    def __init__(self, mesh: ServiceContext, name: str, said: Said) -> None:
        self._mesh = mesh
        self._said = said
        self.asked: list[Generate] = []
        self.loop = WorkLoop(
            mesh,
            Generate,
            subjects.COMMANDS_STREAM,
            [subjects.generate_consumer(priority, name) for priority in subjects.PRIORITIES],
            4,
            self,
        )

    async def handle(self, command: Generate, _delivery: Delivery) -> None:
        self.asked.append(command)
        said = self._said(command) if callable(self._said) else self._said
        if isinstance(said, Answer):
            subject = subjects.answer(command.request_id, command.round, command.agent)
            await self._mesh.storage.store_once(subject, said.to_bytes())
        elif said is not None:
            await store_answer(self._mesh, command.request_id, command.agent, said, command.round)

    def asked_in(self, round_: int) -> list[Generate]:
        """What it was asked in one round."""
        return [command for command in self.asked if command.round == round_]

    async def on_failure(self, command: Generate, error: ChoirError) -> None:
        if not isinstance(error, DeadlineExceeded):
            raise AssertionError(f"{command.task_id}: {error.message}")

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        raise AssertionError(f"{request_id}: {error.message}")


@asynccontextmanager
async def members(client: Client, said: Mapping[str, Said]) -> AsyncIterator[dict[str, Member]]:
    """Members that answer for as long as the context is open."""
    mesh = open_mesh(client)
    present = {name: Member(mesh, name, what) for name, what in said.items()}
    for member in present.values():
        await member.loop.start()
    try:
        yield present
    finally:
        await asyncio.gather(*(member.loop.stop() for member in present.values()))


@asynccontextmanager
async def aggregating(client: Client, poll_interval_s: float = 0.2) -> AsyncIterator[ServiceContext]:
    """An aggregator that works for as long as the context is open."""
    mesh = open_mesh(client, "aggregator")
    aggregator = Aggregator(AggregatorSection(poll_interval_s=poll_interval_s))
    await aggregator.start(mesh)
    await settled(client)
    try:
        yield mesh
    finally:
        await aggregator.stop()


async def result_of(mesh: ServiceContext, request_id: str) -> Result:
    """The result of a request, once it is there."""

    async def stored() -> Result | None:
        found = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        return None if found is None else Result.model_validate_json(found.data)

    return await eventually(stored)


async def result_in_time(
    mesh: ServiceContext,
    asks: Callable[[str, float], Gather],
    answered: Callable[[Result], bool],
    first_s: float,
) -> Result:
    """What becomes of `asks(request_id, timeout_s)`, once those who are to answer before its end have."""

    async def attempt(request_id: str, timeout_s: float) -> Result:
        await enqueue(mesh, asks(request_id, timeout_s))
        return await result_of(mesh, request_id)

    return await in_time(attempt, answered, first_s)


def why_not(result: Result) -> str:
    """What the error of a result says."""
    return "" if result.error is None else result.error.message


async def store_result(
    mesh: ServiceContext,
    request_id: str,
    said: Mapping[str, str | ChoirError],
    topology: Topology = "ensemble",
) -> None:
    """Stores what an ensemble answered, as its result."""
    result = Result(
        request_id=request_id,
        fingerprint="f",
        topology=topology,
        text="",
        answers=tuple(answer(request_id, agent, what) for agent, what in said.items()),
        accepted_at_s=time.time(),
        completed_at_s=time.time(),
    )
    await mesh.storage.store_once(subjects.result(request_id), result.to_bytes())
