"""Which strategies a feedback finds right."""

from __future__ import annotations

from schemas.ensembles.effort import Cascade
from schemas.replies import Decision, Result
from services.aggregator.scores.feedback import readings, verdicts
from services.aggregator.scores.history import judge
from services.aggregator.tests.ensemble import answer


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


def test_a_feedback_on_a_cascade_judges_its_first_wave_alone() -> None:
    """Who was asked later was asked because others did not agree."""
    result = Result(
        request_id="r1",
        fingerprint="f",
        topology="ensemble",
        answers=tuple(
            answer("r1", agent, said) for agent, said in (("a", "Paris"), ("b", "Oslo"), ("c", "Paris"))
        ),
        accepted_at_s=1.0,
        completed_at_s=2.0,
    )
    cascade = Cascade(effort="exact", waves=(("b", "a"), ("c",)), ended="all", bound=0.0)
    assert judge(*readings(result, "Paris")) == (("a", "c"), ("b",))
    assert judge(*readings(result.model_copy(update={"cascade": cascade}), "Paris")) == (("a",), ("b",))
