"""Decides with every requested strategy, from the same ballots and the same history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.commands import AnswerKind, Gather
from schemas.errors import ChoirError
from schemas.replies import Answer, Decision
from services.aggregator import strategies
from services.aggregator.scores.history import History, Unlabelled


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
    context = context_of(question, history, ballots)
    return tuple(strategies.get(name)(ballots.first, context) for name in names)


def context_of(
    question: Question, history: History, ballots: strategies.Ballots | None = None
) -> strategies.StrategyContext:
    """What a strategy may know of this question: the history that fits it, and the other rounds."""
    unlabelled = history.closed.get(question.options or 0) or Unlabelled()
    return strategies.StrategyContext(
        seed=question.seed,
        options=question.options,
        history=history.agents,
        topic_history=history.topics.get(question.topic or "", {}),
        agreement=unlabelled.agreement,
        isp_history=unlabelled.isp,
        confusions=unlabelled.confusions,
        second_round=ballots.second_round if ballots else None,
        samples=ballots.samples if ballots else (),
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
