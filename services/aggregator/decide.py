"""Decides with every requested strategy, from the same ballots and history, and says how sure each is.

Pure. How sure is the probability that an answer is right, as the votes of the first round and what is known
of who cast them tell: see `effort/likely.py` for the formula, and `choir eval` for how well it is calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.commands import AnswerKind, Gather
from schemas.errors import ChoirError, Undecided
from schemas.replies import Answer, Decision
from services.aggregator import strategies
from services.aggregator.effort.likely import chance_right, known_accuracies
from services.aggregator.scores.history import History, Unlabelled
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally


@dataclass(frozen=True)
class Question:
    """What is known of a question beside its answers.

    `seed` decides ties and should come from what was asked; `options` is their number for a closed
    question whose answers are read as letters, None for any other; `topic` what it is about.
    """

    seed: str
    options: int | None = None
    topic: str | None = None


def options_of(kind: AnswerKind, choices: Sequence[str]) -> int | None:
    """How many options a question has, if its answers are read as their letters."""
    return len(choices) if len(choices) >= 2 and kind in ("auto", "choice") else None


def decide(
    names: Sequence[str], ballots: strategies.Ballots, question: Question, history: History
) -> tuple[Decision, ...]:
    """One decision for each strategy; ties fall alike whenever the same is asked with the same seed."""
    return tuple(each.decision() for each in tallies(names, ballots, context_of(question, history, ballots)))


def tallies(names: Sequence[str], ballots: strategies.Ballots, context: StrategyContext) -> tuple[Tally, ...]:
    """The same decisions before anything is told of them."""
    return tuple([strategies.get(name)(ballots.first, context) for name in names])


def context_of(
    question: Question, history: History, ballots: strategies.Ballots | None = None
) -> strategies.StrategyContext:
    """What a strategy may know of this question: the history that fits it, and the other rounds."""
    unlabelled = history.closed.get(question.options or 0) or Unlabelled()
    return strategies.StrategyContext(
        seed=question.seed,
        options=question.options,
        topic=question.topic,
        history=history.agents,
        topic_history=history.topics.get(question.topic or "", {}),
        agreement=unlabelled.agreement,
        isp_history=unlabelled.isp,
        confusions=unlabelled.confusions,
        second_round=ballots.second_round if ballots else None,
        samples=ballots.samples if ballots else (),
        synthesis=ballots.synthesis if ballots else None,
        own_synthesis=ballots.own_synthesis if ballots else None,
        comparisons=ballots.comparisons if ballots else (),
        vectors=ballots.vectors if ballots else {},
    )


def kept(answers: Iterable[Answer], ballots: strategies.Ballots, gather: Gather) -> tuple[Answer, ...]:
    """The answers as the result keeps them: of logprobs that the client did not ask for, what was read."""
    probabilities = {ballot.agent: dict(ballot.probabilities) or None for ballot in ballots.first}
    return tuple(
        answer.model_copy(
            update={
                "logprobs": answer.logprobs if gather.sampling.logprobs else (),
                "option_probabilities": probabilities[answer.agent],
            }
        )
        if answer.logprobs and answer.error is None
        else answer
        for answer in answers
    )


def why_no_answers(gather: Gather, answers: Mapping[str, Answer], late: Mapping[str, ChoirError]) -> str:
    """What kept each member from answering; `late` is with what an attempt of those ended that did not."""
    reasons = [
        f"{member}: {answers[member].error.message}"  # type: ignore[union-attr]
        if member in answers
        else f"{member}: {late[member].message}; not in time"
        if member in late
        else f"{member}: not in time"
        for member in gather.members
    ]
    return "no member of the ensemble has answered (" + "; ".join(reasons) + ")"


def confidence_of(answer: str | None, ballots: Sequence[Ballot], context: StrategyContext) -> float:
    """How probable it is that an answer is right; 0 of none. Too great where agents err together."""
    options = context.options_for(ballots)
    known = known_accuracies([ballot.agent for ballot in ballots], context, options)
    return chance_right(answer, ballots, known, options)


def with_confidence(
    decisions: Sequence[Decision], ballots: Sequence[Ballot], context: StrategyContext
) -> tuple[Decision, ...]:
    """The same decisions, each with how sure it is."""
    return tuple(
        decision.model_copy(update={"confidence": confidence_of(decision.answer, ballots, context)})
        for decision in decisions
    )


def doubt(decision: Decision, min_confidence: float | None) -> Undecided | None:
    """The error of a decision that is less sure than it has to be; None if it is sure enough."""
    sure = decision.confidence or 0.0
    if min_confidence is None or sure >= min_confidence:
        return None
    return Undecided(
        f"min_confidence: {decision.strategy} holds its answer right with a probability of {sure:.1%}, and "
        f"{min_confidence:.1%} are asked for; the answers of all members are in the result",
        field="min_confidence",
    )
