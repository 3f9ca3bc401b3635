"""Decides kept answers again with any strategies: no model is asked.

Predict first, update after: a question is decided with what the questions before it have taught, and only
then teaches. Each repetition of each benchmark learns from nothing, so no question is decided with what
another repetition of it has shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.scoring.reading import Asked, Cost, cost_of, model_s
from schemas.ensembles.rounds import purpose_of
from schemas.ensembles.strategies import SPECS, Asks, asked_for
from schemas.replies import Answer, Decision
from services.aggregator.decide import Question, context_of, options_of, tallies
from services.aggregator.effort.likely import chances_right, known_accuracies
from services.aggregator.scores.history import History
from services.aggregator.scores.learning import learn_answers, learn_label
from services.aggregator.strategies.ballot import Ballot, Tally, leaders
from services.aggregator.strategies.rounds.debate import NO_SECOND_ROUND

BEST_SINGLE = "best_single"
CLOSED_ONLY = frozenset(spec.name for spec in SPECS if spec.closed_only)
ASKED_IN: dict[str, Asks] = {"debate": "second_round", "prediction": "predictions"}
"""What a strategy must have asked for to be charged for answers of a round."""
PLAIN_VOTES = ("majority", "debate")
"""Strategies that count votes by nature."""


def history_before(asked: Sequence[Asked]) -> Iterator[tuple[Asked, History]]:
    """Every question with what the questions before it have taught; it teaches when the next one is asked
    for."""
    histories: dict[tuple[str, int], History] = {}
    for each in asked:
        kept = each.exchange
        history = histories.setdefault((kept.benchmark, kept.repetition), History())
        yield each, history
        learn_answers(history, each.ballots.first, question_of(each))
        learn_label(history, each.ballots.first, kept.right, kept.topic)


def strategy_outcomes(asked: Sequence[Asked], names: Sequence[str]) -> list[Outcome]:
    """What each strategy made of each question; `best_single` stands among the baselines."""
    direct = [name for name in names if name != BEST_SINGLE]
    asks = {name: asked_for((name,)) for name in direct}
    return [
        outcome_of(each, decision, asks[decision.strategy], sure.get(decision.answer))
        for each, decided, sure in _decided(asked, direct)
        for decision in decided
    ]


def _decided(
    asked: Sequence[Asked], names: Sequence[str]
) -> Iterator[tuple[Asked, tuple[Tally, ...], dict[str | None, float]]]:
    """Every question with its decisions, one for each strategy, and how probable it is of each answer that it
    is right. A strategy that decides closed questions only has no decision on an open one."""
    open_too = [name for name in names if name not in CLOSED_ONLY]
    for each, history in history_before(asked):
        ballots, context = each.ballots.first, context_of(question_of(each), history, each.ballots)
        decided = tallies(names if each.exchange.choices else open_too, each.ballots, context)
        options = context.options_for(ballots)
        known = known_accuracies([ballot.agent for ballot in ballots], context, options)
        answers = dict.fromkeys(decision.answer for decision in decided)
        yield each, decided, chances_right(answers, ballots, known, options)


def question_of(asked: Asked) -> Question:
    """What strategies are told of a question: its lots fall by what was asked."""
    kept = asked.exchange
    return Question(
        seed=f"{kept.benchmark} {kept.question_id} {kept.repetition} {kept.prompt_sha256}",
        options=options_of(kept.kind, kept.choices),
        topic=kept.topic,
    )


def outcome_of(
    asked: Asked, decision: Tally, asks: frozenset[Asks], confidence: float | None = None
) -> Outcome:
    """A decision with its costs; `asks` is what its strategy had the agents asked beyond the question."""
    kept = asked.exchange
    cost = _cost(asked, decision)
    if asks:
        cost = _with_further(cost, asked, asks)
    of_mesh = _of_mesh(kept, decision.strategy)
    return Outcome(
        contestant=decision.strategy,
        group="strategy",
        benchmark=kept.benchmark,
        question_id=kept.question_id,
        topic=kept.topic,
        repetition=kept.repetition,
        answer=decision.answer,
        right=decision.answer == kept.right,
        expected=chance_to_be_right(decision, kept.right),
        tie=decision.tie,
        calls=cost.calls,
        tokens=cost.tokens,
        latency_s=cost.latency_s,
        unread=cost.unread,
        missing=cost.missing,
        share=decision.share,
        margin=decision.margin,
        note=decision.note,
        fell_back=fell_back(asked, decision),
        template=kept.template,
        confidence=confidence,
        mesh_answer=None if of_mesh is None else of_mesh.answer,
        mesh_agrees=None if of_mesh is None else of_mesh.answer == decision.answer,
    )


def _of_mesh(kept: Exchange, strategy: str) -> Decision | None:
    """What the mesh decided by a strategy, if it was asked to."""
    decided = () if kept.result is None else kept.result.decisions
    for each in decided:
        if each.strategy == strategy:
            return each
    return None


def _cost(asked: Asked, decision: Tally) -> Cost:
    """What the answers took that a decision needed: all, but of `auto` those of whom it would have asked. Its
    cascades are charged for all members."""
    if decision.strategy != "auto":
        return asked.cost
    voted = {vote.agent for vote in decision.votes}
    return cost_of([reply for reply in asked.replies if reply.agent in voted])


def _with_further(cost: Cost, asked: Asked, asks: frozenset[Asks]) -> Cost:
    """The same and what was asked beyond the question: rounds come one after another."""
    further = _further(asked, asks)
    return Cost(
        calls=cost.calls + len(further),
        tokens=cost.tokens + sum(answer.prompt_tokens + answer.generated_tokens for answer in further),
        latency_s=cost.latency_s + max(map(model_s, further), default=0.0),
        unread=cost.unread + _further_unread(asked, asks),
        missing=cost.missing + _further_missing(asked, further, asks),
    )


def chance_to_be_right(decision: Tally, right: str) -> float:
    """Over all lots that could have been drawn: one in so many as lead, if the right answer is among them."""
    if not decision.tie:
        return float(decision.answer == right)
    first = leaders(decision.scores)
    return 1 / len(first) if right in first else 0.0


def fell_back(asked: Asked, decision: Tally) -> bool | None:
    """Whether a strategy had nothing but votes to go by; see `Outcome`."""
    if len(asked.counted) < 2 or decision.strategy == "majority":
        return None
    if decision.strategy in PLAIN_VOTES:
        return decision.note == NO_SECOND_ROUND
    return decision.scores == asked.counted


def _further(asked: Asked, asks: frozenset[Asks]) -> list[Answer]:
    """The answers beyond the question itself that a strategy is made from."""
    return [
        answer for answer in asked.exchange.further_answers if ASKED_IN.get(purpose_of(answer.round)) in asks
    ]


def _further_unread(asked: Asked, asks: frozenset[Asks]) -> int:
    """How many of the further answers that a strategy is made from came and could not be read."""
    count = 0
    if "second_round" in asks:
        count += _none(asked.ballots.second_round or ())
    if "predictions" in asks:
        came = {a.agent for a in asked.exchange.further_answers if _is(a, "prediction") and a.error is None}
        count += sum(b.predicted is None and b.agent in came for b in asked.ballots.first)
    return count


def _further_missing(asked: Asked, further: Sequence[Answer], asks: frozenset[Asks]) -> int:
    """How many further answers did not come, or came as an error, in rounds that were asked.

    A second round is asked of those that answered the first, predictions of all.
    """
    answered = sum(reply.why_not is None for reply in asked.replies)
    wanted = {"debate": answered, "prediction": len(asked.replies)}
    return sum(
        max(0, wanted[purpose] - sum(_is(a, purpose) and a.error is None for a in further))
        for purpose, needed in ASKED_IN.items()
        if needed in asks and any(_is(a, purpose) for a in further)
    )


def _is(answer: Answer, purpose: str) -> bool:
    return purpose_of(answer.round) == purpose


def _none(ballots: Sequence[Ballot]) -> int:
    return sum(ballot.answer is None for ballot in ballots)
