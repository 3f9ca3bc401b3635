"""Reads ballots from the answers of all rounds. Pure: the same answers always give the same ballots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from schemas.commands import AnswerKind
from schemas.replies import Answer
from schemas.rounds import DEBATE, PREDICTION, QUESTION, SAMPLES_FROM, WITHOUT_LOGPROBS
from services.aggregator.reading.called import canonical, read_answer
from services.aggregator.reading.normalise import normalise
from services.aggregator.reading.option_probabilities import option_probabilities
from services.aggregator.strategies.ballot import Ballot, Ballots


def read_ballots(answers: Iterable[Answer], kind: AnswerKind, choices: Sequence[str] = ()) -> Ballots:
    """The ballots of one request, from its answers of all rounds: a result's `answers`, `further_answers`.

    They stand in the order of `answers`, which should be that of the members. An answer that is an error
    casts no ballot; if it is one because the agent has no logprobs, its answer without them does.
    `second_round` is None if there is no answer of that round, not even an error.
    """
    answers = tuple(answers)
    by_round: dict[int, list[Answer]] = {}
    for answer in answers:
        by_round.setdefault(answer.round, []).append(answer)
    predicted = {
        answer.agent: normalise(answer.text, kind, choices)
        for answer in _usable(by_round.get(PREDICTION, ()))
    }
    question = (*by_round.get(QUESTION, ()), *by_round.get(WITHOUT_LOGPROBS, ()))
    usable = {answer.agent: answer for answer in _usable(question)}
    order = dict.fromkeys(answer.agent for answer in answers if answer.round in (QUESTION, WITHOUT_LOGPROBS))
    first = [usable[agent] for agent in order if agent in usable]
    samples = [by_round[round_] for round_ in sorted(by_round) if round_ >= SAMPLES_FROM]
    return Ballots(
        first=tuple(_ballot(answer, kind, choices, predicted) for answer in first),
        second_round=_second_round(by_round.get(DEBATE), kind, choices),
        samples=tuple(_ballot(answer, kind, choices, {}) for each in samples for answer in _usable(each)),
    )


def _second_round(
    answers: Sequence[Answer] | None, kind: AnswerKind, choices: Sequence[str]
) -> tuple[Ballot, ...] | None:
    if answers is None:
        return None
    return tuple(_ballot(answer, kind, choices, {}) for answer in _usable(answers))


def _usable(answers: Iterable[Answer]) -> Iterable[Answer]:
    return (answer for answer in answers if answer.error is None)


def _ballot(
    answer: Answer, kind: AnswerKind, choices: Sequence[str], predicted: Mapping[str, str | None]
) -> Ballot:
    probabilities = answer.option_probabilities
    return Ballot(
        agent=answer.agent,
        text=canonical(answer.tool_calls) if answer.tool_calls else answer.text,
        answer=read_answer(answer, kind, choices),
        probabilities=option_probabilities(answer, choices) if probabilities is None else probabilities,
        predicted=predicted.get(answer.agent),
    )
