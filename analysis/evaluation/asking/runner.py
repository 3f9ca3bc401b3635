"""Asks the mesh what a plan says and the journal does not have, many requests at a time.

A request that fails for a reason of its own is kept with that reason: its agents abstain. One that the
mesh could not take yet is asked again. If the mesh goes away the run ends with the error, and can be
resumed: nothing that came back is lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.journal import EvalJournal
from analysis.evaluation.asking.plan import Call
from analysis.evaluation.likelihood.asked import Scoring
from analysis.evaluation.likelihood.texts import Scored
from analysis.evaluation.provenance.asking import CachedAsking, Outcome
from schemas.errors import (
    BrokerUnavailable,
    Cancelled,
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
from services.client.bulk.runner import run_bulk, until_taken
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
    """Asks calls, at most `concurrency` of them at a time, as far as `asking` does not have their answers."""

    def __init__(
        self,
        mesh: Choir,
        journal: EvalJournal,
        concurrency: int,
        *,
        asking: CachedAsking,
        teach: bool = False,
    ) -> None:
        self._mesh = mesh
        self._asking = asking
        self._scoring = Scoring(mesh)
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
            after=self._give_feedback if self._teach else None,
        )

    async def _asked(self, call: Call) -> Exchange:
        return await self._asking.exchange_of(call, self._outcome)

    async def _outcome(self, call: Call) -> Outcome:
        """What came of a call, asked again under its id for as long as nobody takes it."""
        try:
            return await until_taken(lambda: self._result(call), dict.fromkeys(NOT_TAKEN, PATIENCE_S))
        except OUTCOMES as error:
            return error.body(call.request_id), None

    async def _result(self, call: Call) -> tuple[Result, Scored | None]:
        if call.continuation is not None:
            return await self._scoring.result_of(call)
        return await self._mesh.result_of(call.ask), None

    async def _give_feedback(self, call: Call, came: Exchange) -> None:
        """Tells the mesh the right answer of a question that it has decided."""
        if came.phase == "fan_out" and came.result is not None:
            await self._mesh.feedback(call.request_id, came.right)
