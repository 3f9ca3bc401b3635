"""Which strategies a feedback finds right."""

from __future__ import annotations

from schemas.replies import Decision, Result
from services.aggregator.scores.feedback import verdicts
from services.aggregator.scores.history import judge


def decision(strategy: str, answer: str | None) -> Decision:
    return Decision(strategy=strategy, answer=answer, share=1, margin=1, tie=False, votes=(), scores={})


def test_a_feedback_judges_what_each_strategy_decided() -> None:
    result = Result(
        request_id="r1",
        fingerprint="f",
        topology="ensemble",
        decisions=(decision("majority", "london"), decision("weighted", "paris"), decision("isp", None)),
        accepted_at_s=1.0,
        completed_at_s=2.0,
    )
    assert judge(*verdicts(result, "Paris")) == (("weighted",), ("majority",))
