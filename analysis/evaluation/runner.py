"""Asks the mesh what a plan says, many requests at a time, and keeps what comes back at once.

A request that fails for a reason of its own is kept with that reason: its agents abstain. One that the
mesh could not take yet is asked again. If the mesh goes away the run ends with the error, and can be
resumed: nothing that came back is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

from analysis.evaluation.exchange import Exchange, exchange
from analysis.evaluation.journal import EvalJournal
from analysis.evaluation.plan import Call
from schemas.errors import (
    BrokerUnavailable,
    Cancelled,
    ChoirError,
    ContextExceeded,
    DeadlineExceeded,
    GenerationFailed,
    InternalError,
    ModelUnusable,
    NoAnswers,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    PoisonMessage,
    UnknownModel,
)
from schemas.replies import Result
from services.client.client import Choir

OUTCOMES = (
    Cancelled,
    ContextExceeded,
    DeadlineExceeded,
    GenerationFailed,
    InternalError,
    ModelUnusable,
    NoAnswers,
    PayloadTooLarge,
    PoisonMessage,
)
"""Errors that are the outcome of a request: asking again would be another request."""

NOT_TAKEN = (BrokerUnavailable, NotReady, Overloaded, UnknownModel)
"""Errors of a request that was not accepted: it may be soon."""

PATIENCE_S = 60.0
"""How long the mesh may refuse one request: time for a supervisor to start an agent again."""
PAUSE_S = 0.5

Came = Callable[[Exchange], None]


class Runner:
    """Asks calls, at most `concurrency` of them at a time."""

    def __init__(
        self, mesh: Choir, journal: EvalJournal, concurrency: int, came: Came, *, teach: bool = False
    ) -> None:
        self._mesh = mesh
        self._journal = journal
        self._concurrency = concurrency
        self._came = came
        self._teach = teach

    async def run(self, calls: Iterable[Call]) -> None:
        """Asks those that the journal does not have yet. ChoirError if the mesh cannot be asked any more."""
        waiting = iter([call for call in calls if call.request_id not in self._journal.records])
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work(waiting))
        except* ChoirError as failures:
            raise _first(failures) from None

    async def _work(self, waiting: Iterator[Call]) -> None:
        for call in waiting:
            came = await self._asked(call)
            self._journal.keep(came.request_id, came)
            self._came(came)
            if self._teach and came.phase == "fan_out" and came.result is not None:
                await self._mesh.feedback(call.request_id, came.right)

    async def _asked(self, call: Call) -> Exchange:
        asked_at_s, started_s = time.time(), time.perf_counter()
        agents = call.ask.models or (call.ask.model or "",)
        try:
            outcome = await self._result(call)
        except OUTCOMES as error:
            return exchange(
                call, agents, asked_at_s, time.perf_counter() - started_s, error.body(call.request_id)
            )
        return exchange(call, agents, asked_at_s, time.perf_counter() - started_s, outcome)

    async def _result(self, call: Call) -> Result:
        """The result of a call, asked again under its id for as long as nobody takes it."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                async for reply in self._mesh.follow(call.ask):
                    if isinstance(reply, Result):
                        return reply
            except NOT_TAKEN as error:
                if time.monotonic() > end_s:
                    raise
                await asyncio.sleep(error.retry_after_s or PAUSE_S)


def _first(failures: BaseExceptionGroup[ChoirError]) -> ChoirError:
    """The first error of a group of groups."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
