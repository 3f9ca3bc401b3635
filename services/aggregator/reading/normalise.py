"""What an answer votes for: its text, normalised, or the tools that it calls. Pure.

A text that cannot be read abstains. Votes are counted by equality, so two texts that mean the same must
come out the same: `(B)` and `Answer: B`; `$1,000.` and `1000`; `The Blue Whale!` and `blue whale`. Answers
that call the same tools with the same arguments are one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.commands import AnswerKind
from schemas.replies import Answer, Decision
from schemas.requests.chat import ToolCall
from services.aggregator.reading.choice_answer import choice
from services.aggregator.reading.number_answer import number
from services.aggregator.reading.text_answer import open_answer, short_text


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
