"""Decides kept answers again with any strategies: no model is asked.

Predict first, update after: a question is decided with what the questions before it have taught, and only
then teaches. Each repetition of each benchmark learns from nothing, so no question is decided with what
another repetition of it has shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.evaluation.outcome import Outcome
from analysis.evaluation.reading import NS_PER_S, Asked, Reply
from schemas.replies import Answer, Decision
from schemas.rounds import purpose_of
from schemas.strategies import SPECS, Asks, asked_for
from services.aggregator.decide import Question, decide, options_of
from services.aggregator.scores.history import History
from services.aggregator.scores.learning import learn_answers, learn_label

BEST_SINGLE = "best_single"
CLOSED_ONLY = frozenset(spec.name for spec in SPECS if spec.closed_only)
ASKED_IN: dict[str, Asks] = {"debate": "second_round", "prediction": "predictions"}
"""What a strategy must have asked for to be charged for answers of a round."""


def decisions(asked: Sequence[Asked], names: Sequence[str]) -> Iterator[tuple[Asked, tuple[Decision, ...]]]:
    """Every question with its decisions, one for each strategy; `asked` is in the order of the plan.

    A strategy that decides closed questions only has no decision on an open one.
    """
    open_too = [name for name in names if name not in CLOSED_ONLY]
    histories: dict[tuple[str, int], History] = {}
    for each in asked:
        kept = each.exchange
        history = histories.setdefault((kept.benchmark, kept.repetition), History())
        question = Question(
            seed=f"{kept.benchmark} {kept.question_id} {kept.repetition} {kept.prompt_sha256}",
            options=options_of(kept.kind, kept.choices),
            topic=kept.topic,
        )
        yield each, decide(names if kept.choices else open_too, each.ballots, question, history)
        learn_answers(history, each.ballots.first, question)
        learn_label(history, each.ballots.first, kept.right, kept.topic)


def strategy_outcomes(asked: Sequence[Asked], names: Sequence[str]) -> list[Outcome]:
    """What each strategy made of each question; `best_single` stands among the baselines."""
    direct = [name for name in names if name != BEST_SINGLE]
    asks = {name: asked_for((name,)) for name in direct}
    return [
        _outcome(each, decision, asks[decision.strategy])
        for each, decided in decisions(asked, direct)
        for decision in decided
    ]


def _outcome(asked: Asked, decision: Decision, asks: frozenset[Asks]) -> Outcome:
    kept = asked.exchange
    further = _further(asked, asks)
    return Outcome(
        contestant=decision.strategy,
        group="strategy",
        benchmark=kept.benchmark,
        question_id=kept.question_id,
        topic=kept.topic,
        repetition=kept.repetition,
        answer=decision.answer,
        right=decision.answer == kept.right,
        tie=decision.tie,
        calls=len(asked.replies) + len(further),
        tokens=sum(reply.tokens for reply in asked.replies)
        + sum(answer.prompt_tokens + answer.generated_tokens for answer in further),
        latency_s=slowest(asked.replies)
        + max((answer.timings.total_duration_ns / NS_PER_S for answer in further), default=0.0),
        unread=unread(asked.replies),
        missing=missing(asked.replies),
        share=decision.share,
        margin=decision.margin,
        note=decision.note,
    )


def _further(asked: Asked, asks: frozenset[Asks]) -> list[Answer]:
    """The answers beyond the question itself that a strategy is made from."""
    if not asks:
        return []
    return [
        answer for answer in asked.exchange.further_answers if ASKED_IN.get(purpose_of(answer.round)) in asks
    ]


def slowest(replies: Sequence[Reply]) -> float:
    """How long answers take that are given side by side."""
    return max((reply.model_s for reply in replies), default=0.0)


def unread(replies: Sequence[Reply]) -> int:
    """How many answers came and could not be read."""
    return sum(reply.answer is None and reply.why_not is None for reply in replies)


def missing(replies: Sequence[Reply]) -> int:
    """How many answers did not come."""
    return sum(reply.why_not is not None for reply in replies)
