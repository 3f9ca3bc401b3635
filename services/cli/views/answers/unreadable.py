"""Explains an ensemble's result that no strategy could read."""

from __future__ import annotations

from schemas.errors import AnswersUnreadable
from schemas.replies import Result
from services.cli.views.terminal import plain

LONGEST_QUOTE = 32
QUOTED = 4


def unreadable(result: Result) -> AnswersUnreadable | None:
    """The error of a result without any decision; None if one strategy has decided."""
    if not result.decisions or any(d.answer is not None or d.text is not None for d in result.decisions):
        return None
    said = [f"{answer.agent}: {_quoted(answer.text)}" for answer in result.answers if answer.error is None]
    more = [f"{len(said) - QUOTED} more"] if len(said) > QUOTED else []
    wanted = f"one of {', '.join(result.choices)}" if result.choices else f"a {result.answer_kind}"
    as_what = "" if result.answer_kind in ("auto", "text") and not result.choices else f" as {wanted}"
    return AnswersUnreadable(
        f"none of the {len(said)} answers could be read{as_what} ({'; '.join([*said[:QUOTED], *more])})"
    )


def _quoted(text: str) -> str:
    words = plain(" ".join(text.split()))
    return f'"{words}"' if len(words) <= LONGEST_QUOTE else f'"{words[: LONGEST_QUOTE - 1]}…"'
