"""The endpoint `choir.feedback`: a client says what was right, and the agents' histories learn from it."""

from __future__ import annotations

from schemas import subjects
from schemas.commands import Feedback
from schemas.errors import InvalidRequest, UnknownRequest
from schemas.events import FeedbackReceived
from schemas.replies import FeedbackCounted, Result
from services.aggregator.reading.ballots import normalise, read_answer
from services.aggregator.scores.history import judge
from services.aggregator.scores.ledger import FeedbackLedger
from services.aggregator.scores.score_codec import FeedbackUpdate
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Caller


class FeedbackHandler:
    """Judges stored answers by what a client says."""

    def __init__(self, mesh: ServiceContext, ledger: FeedbackLedger) -> None:
        self._mesh = mesh
        self._ledger = ledger

    async def handle(self, feedback: Feedback, caller: Caller) -> None:
        """Counts every agent that had answered as right or wrong, overall and on the question's topic.

        Of a cascade those of its first wave: who was asked later was asked because others did not agree, so
        what they had right is no fair sample of what they can.
        """
        request_id = caller.owned(feedback.request_id)
        result = await self._result(request_id)
        said = feedback.correct or feedback.wrong or ""
        right, wrong = judge(*readings(result, said))
        strategies_right, strategies_wrong = judge(*verdicts(result, said))
        if feedback.correct is None:  # who gave another answer than the wrong one may be right or not
            right, wrong, strategies_right, strategies_wrong = (), right, (), strategies_right
        update = FeedbackUpdate(
            request_id=request_id,
            right=right,
            wrong=wrong,
            topic=feedback.topic or result.topic,
            strategies_right=strategies_right,
            strategies_wrong=strategies_wrong,
        )
        counted = await self._ledger.count(update)
        await caller.send(
            FeedbackCounted(
                request_id=feedback.request_id, right=right, wrong=wrong, already_counted=not counted
            )
        )

    async def _result(self, request_id: str) -> Result:
        stored = await self._mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        own = subjects.bare_id(request_id)
        if stored is None:
            raise UnknownRequest(f"request_id: {own!r} has no result", field="request_id")
        result = Result.read(stored.data)
        if result.topology == "chain":
            raise InvalidRequest(
                f"request_id: {own!r} went along a chain; its texts build on one another, and none of "
                "them counts as right or wrong",
                field="request_id",
            )
        return result


def emit_counted(mesh: ServiceContext, update: FeedbackUpdate) -> None:
    """The event of feedback that has been counted."""
    mesh.events.publish(
        FeedbackReceived,
        request_id=update.request_id,
        right=update.right,
        wrong=update.wrong,
        strategies_right=update.strategies_right,
        strategies_wrong=update.strategies_wrong,
    )


def verdicts(result: Result, correct: str) -> tuple[dict[str, str | None], str]:
    """What each strategy decided and the correct answer, normalised alike: see `readings`."""
    decided = {decision.strategy: decision.answer for decision in result.decisions}
    return decided, readings(result, correct)[1]


def readings(result: Result, correct: str) -> tuple[dict[str, str | None], str]:
    """All answers and the correct one, normalised alike. InvalidRequest if `correct` cannot be read."""
    expected = normalise(correct, result.answer_kind, result.choices)
    if expected is None:
        raise InvalidRequest(f"correct: {correct!r} cannot be read as an answer", field="correct")
    fair = None if result.cascade is None else frozenset[str]().union(*result.cascade.waves[:1])
    given = {
        answer.agent: read_answer(answer, result.answer_kind, result.choices)
        for answer in result.answers
        if answer.error is None and (fair is None or answer.agent in fair)
    }
    return given, expected
