"""Tool calls as votes: answers that call the same tools with the same arguments are one answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.chat import ToolCall
from schemas.commands import AnswerKind
from schemas.replies import Answer, Decision
from services.aggregator.reading.normalise import normalise


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
