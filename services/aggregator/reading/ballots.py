"""Reads ballots from the answers of all rounds: what each votes for. Pure: the same answers always give the
same ballots.

A text that cannot be read abstains. Votes are counted by equality, so two texts that mean the same must
come out the same: `(B)` and `Answer: B`; `$1,000.` and `1000`; `The Blue Whale!` and `blue whale`. Answers
that call the same tools with the same arguments are one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from schemas.commands import AnswerKind
from schemas.ensembles.rounds import (
    COMPARISONS_FROM,
    DEBATE,
    OWN_SYNTHESIS,
    PREDICTION,
    QUESTION,
    SAMPLES_FROM,
    SYNTHESIS,
    WITHOUT_LOGPROBS,
    comparison_round,
    vector_round,
)
from schemas.replies import Answer, Decision
from schemas.requests.chat import ToolCall
from services.aggregator.reading.choice_answer import choice
from services.aggregator.reading.number_answer import number
from services.aggregator.reading.option_probabilities import option_probabilities
from services.aggregator.reading.text_answer import open_answer, short_text
from services.aggregator.strategies.ballot import Ballot, Ballots, Comparison, tie_break

LABELLED = ("answer A", "answer B")
"""How the two answers of a comparison are called."""


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
    samples = [by_round[round_] for round_ in sorted(by_round) if SAMPLES_FROM <= round_ < SYNTHESIS]
    compared = max(by_round, default=0) >= COMPARISONS_FROM
    return Ballots(
        first=tuple(_ballot(answer, kind, choices, predicted) for answer in first),
        second_round=_second_round(by_round.get(DEBATE), kind, choices),
        samples=tuple(_ballot(answer, kind, choices, {}) for each in samples for answer in _usable(each)),
        synthesis=_written(by_round.get(SYNTHESIS, ()), kind, choices),
        own_synthesis=_written(by_round.get(OWN_SYNTHESIS, ()), kind, choices),
        comparisons=tuple(_comparisons(by_round, tuple(order))) if compared else (),
        vectors=dict(_vectors(by_round, tuple(order))) if compared else {},
    )


def normalise(text: str, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The answer in `text`, in the one form that it shares with all texts that mean the same.

    `choice` gives the upper-case letter of an option, `number` a plain decimal number (or a
    fraction in lowest terms, where it has no finite decimal form), `text` lower-case words. `auto`
    is `choice` where `choices` are given; otherwise `number` if the text is a number or ends in
    one with little around it, and else `text`. None means that there is no answer of that kind.
    """
    match kind:
        case "choice":
            return choice(text, choices)
        case "number":
            return number(text)
        case "text":
            return short_text(text)
        case "auto":
            return choice(text, choices) if choices else open_answer(text)


def read_answer(answer: Answer, kind: AnswerKind, choices: Sequence[str]) -> str | None:
    """What an answer votes for: the calls that it makes, by name and arguments, else what its text says."""
    return canonical(answer.tool_calls) if answer.tool_calls else normalise(answer.text, kind, choices)


def canonical(calls: Iterable[ToolCall]) -> str:
    """Calls as JSON with sorted keys, in an order of their own: neither ids nor order make a difference."""
    return f"[{','.join(sorted(call.canonical for call in calls))}]"


def decided_calls(decision: Decision, answers: Iterable[Answer]) -> tuple[ToolCall, ...]:
    """The calls that were decided on, as the first answer has them that makes them; none, if a text was."""
    return next(
        (
            answer.tool_calls
            for answer in answers
            if answer.tool_calls and canonical(answer.tool_calls) == decision.answer
        ),
        (),
    )


def _written(answers: Sequence[Answer], kind: AnswerKind, choices: Sequence[str]) -> Ballot | None:
    return next((_ballot(answer, kind, choices, {}) for answer in _usable(answers)), None)


def _comparisons(by_round: Mapping[int, Sequence[Answer]], agents: Sequence[str]) -> Iterator[Comparison]:
    """What judges said of each two agents' answers; who named neither, or both, said nothing."""
    for one, other in combinations(agents, 2):
        for answer in _usable(by_round.get(comparison_round(one, other), ())):
            shown = as_shown(answer.agent, one, other)
            letter = choice(answer.text, LABELLED)
            if letter in ("A", "B"):
                won, lost = shown if letter == "A" else shown[::-1]
                yield Comparison(answer.agent, won, lost)


def _vectors(
    by_round: Mapping[int, Sequence[Answer]], agents: Sequence[str]
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The vectors of what agents said, by agent."""
    for agent in agents:
        for answer in _usable(by_round.get(vector_round(agent), ())):
            if answer.embeddings is not None:
                yield agent, answer.embeddings.numbers[0]


def as_shown(judge: str, one: str, other: str) -> tuple[str, str]:
    """Whose answer a judge is shown as A, and whose as B: by lot, so that no place is better for anybody."""
    first = min((one, other), key=lambda agent: tie_break(f"{judge} {'-'.join(sorted((one, other)))}", agent))
    return first, other if first == one else one


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
    if probabilities is None:  # an open question has no options
        probabilities = option_probabilities(answer, choices) if choices else {}
    return Ballot(
        agent=answer.agent,
        text=canonical(answer.tool_calls) if answer.tool_calls else answer.text,
        answer=read_answer(answer, kind, choices),
        probabilities=probabilities,
        predicted=predicted.get(answer.agent),
    )
