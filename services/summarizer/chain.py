"""One chain: the first peer answers, each further one summarises."""

from __future__ import annotations

import asyncio
import time

from schemas.commands import Summarize
from schemas.errors import ChoirError
from schemas.events import RequestSummarised
from schemas.replies import Answer
from services.chassis.context import ServiceContext
from services.chassis.registry.directory import Directory
from services.summarizer.ping import ping_agent
from services.summarizer.steps import StepRecord
from services.summarizer.summary import Summary, Written, summary_request
from services.summarizer.task_client import TaskClient
from services.summarizer.token_budget import TokenBudget


class Chain:
    """Walks one routing slip. All that it knows is in ANSWERS: another one walks on where it died."""

    def __init__(
        self,
        mesh: ServiceContext,
        directory: Directory,
        task_client: TaskClient,
        command: Summarize,
        *,
        delivery: int,
        max_parts: int,
    ) -> None:
        self._mesh = mesh
        self._directory = directory
        self._task_client = task_client
        self._command = command
        self._delivery = delivery
        self._max_parts = max_parts

    async def walk(self) -> list[StepRecord]:
        """Every step's record, in order. Raises what a step fails with."""
        records: list[StepRecord] = []
        pings: list[asyncio.Task[int | None]] = []
        try:
            for step in range(1, len(self._command.peers) + 1):
                text = records[-1].answer.text if records else ""
                records.append(await self._step(step, text))
                # While the next peer works there is time to measure how far away this one is.
                pings.append(asyncio.create_task(self._ping(records[-1].answer)))
            measured = await asyncio.gather(*pings)
        finally:
            for ping in pings:
                ping.cancel()
        return [
            StepRecord(record.answer, record.parts, record.round_trip_ns, ping_ns)
            for record, ping_ns in zip(records, measured, strict=True)
        ]

    async def _ping(self, answer: Answer) -> int | None:
        """The round trip to who has answered; None at once if that is no agent, or has gone meanwhile."""
        if all(agent.instance != answer.instance for agent in self._directory.of("agent")):
            return None
        return await ping_agent(self._mesh.client, answer.instance)

    async def _step(self, step: int, text: str) -> StepRecord:
        found, started_ns = self._task_client.found, time.perf_counter_ns()
        written = await (self._generate() if step == 1 else self._summarise(step, text))
        duration_ns = time.perf_counter_ns() - started_ns
        asked_here = self._task_client.found == found
        return StepRecord(written.answer, written.parts, duration_ns if asked_here else None)

    async def _generate(self) -> Written:
        task = self._command.generate(1, self._command.messages, at_s=self._mesh.clock.now())
        return Written(await self._task_client.run(task))

    async def _summarise(self, step: int, text: str) -> Written:
        started_ns = time.perf_counter_ns()
        model = self._command.peers[step - 1]
        budget = TokenBudget(
            self._mesh.client,
            self._directory,
            model,
            lambda piece: summary_request(self._command, piece),
            self._command.sampling.max_tokens,
        )
        summary = Summary(self._command, step, self._task_client, budget, self._max_parts)
        try:
            written = await summary.write(text)
        except ChoirError as error:
            self._announce(model, started_ns, error=error)
            raise
        self._announce(model, started_ns, written)
        return written

    def _announce(
        self, model: str, started_ns: int, written: Written | None = None, error: ChoirError | None = None
    ) -> None:
        tasks = (*written.parts, written.answer) if written else ()
        self._mesh.events.publish(
            RequestSummarised,
            request_id=self._command.request_id,
            model=model,
            pieces=len(written.parts) or 1 if written else 1,
            tasks=len(tasks),
            delivery=self._delivery,
            prompt_tokens=sum(task.prompt_tokens for task in tasks),
            generated_tokens=sum(task.generated_tokens for task in tasks),
            total_duration_ns=time.perf_counter_ns() - started_ns,
            error=error.body(self._command.request_id) if error else None,
        )
