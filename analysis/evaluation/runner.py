"""Asks the mesh what a plan says and the journal does not have, many requests at a time.

A request that fails for a reason of its own is kept with that reason: its agents abstain. One that the
mesh could not take yet is asked again. If the mesh goes away the run ends with the error, and can be
resumed: nothing that came back is lost.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable

from analysis.evaluation.exchange import Exchange, exchange
from analysis.evaluation.journal import EvalJournal
from analysis.evaluation.plan import Call
from schemas.errors import (
    BrokerUnavailable,
    Cancelled,
    ContextExceeded,
    DeadlineExceeded,
    ErrorBody,
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
from services.client.bulk import run_bulk, until_taken
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


class Runner:
    """Asks calls, at most `concurrency` of them at a time."""

    def __init__(self, mesh: Choir, journal: EvalJournal, concurrency: int, *, teach: bool = False) -> None:
        self._mesh = mesh
        self._journal = journal
        self._concurrency = concurrency
        self._teach = teach

    def run(self, calls: Iterable[Call]) -> AsyncGenerator[Exchange, None]:
        """Asks those that the journal does not have yet. ChoirError if the mesh cannot be asked any more."""
        return run_bulk(
            calls,
            self._asked,
            self._journal,
            lambda call: call.request_id,
            lambda: self._concurrency,
            after=self._told if self._teach else None,
        )

    async def _asked(self, call: Call) -> Exchange:
        """What came of a call, asked again under its id for as long as nobody takes it."""
        asked_at_s, started_s = time.time(), time.perf_counter()
        agents = call.ask.models or (call.ask.model or "",)
        outcome: Result | ErrorBody
        try:
            outcome = await until_taken(
                lambda: self._mesh.result_of(call.ask), dict.fromkeys(NOT_TAKEN, PATIENCE_S)
            )
        except OUTCOMES as error:
            outcome = error.body(call.request_id)
        return exchange(call, agents, asked_at_s, time.perf_counter() - started_s, outcome)

    async def _told(self, call: Call, came: Exchange) -> None:
        """Tells the mesh the right answer of a question that it has decided."""
        if came.phase == "fan_out" and came.result is not None:
            await self._mesh.feedback(call.request_id, came.right)
