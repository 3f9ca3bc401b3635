"""What a result says: the texts, what was thought before them, why they ended, how many tokens they took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.replies import Answer, Result, Sample
from schemas.requests.chat import ToolCall

PIECE_LENGTH = 64
"""In pieces of so many characters comes a text that was there all at once."""


@dataclass(frozen=True)
class Choice:
    """One text, with what was thought before it and the tools that are to be called. `cut` if it had no more
    room; `stop_string` ended it, if that is known."""

    text: str
    thinking: str | None
    tool_calls: tuple[ToolCall, ...]
    cut: bool
    logprobs: tuple[dict[str, Any], ...]
    stop_string: str | None = None

    @property
    def finish_reason(self) -> str:
        """Why the text ended."""
        if self.tool_calls:
            return "tool_calls"
        return "length" if self.cut else "stop"


@dataclass(frozen=True)
class Usage:
    """Tokens of all answers that were made, members of ensembles included; `winner_tokens` of the one whose
    text the result is."""

    prompt_tokens: int
    generated_tokens: int
    winner_tokens: int


def choices(result: Result, *, with_members: bool = False) -> tuple[Choice, ...]:
    """The texts of a result, one or `n`. `with_members` has an ensemble's answers for its thoughts."""
    won = winner(result)
    thinking = won.thinking if won is not None else None
    if result.topology == "ensemble":
        thinking = _members(result) if with_members else None
    cut = won is not None and won.finish_reason == "length"
    logprobs, stop = (won.logprobs, won.stop_string) if won is not None else ((), None)
    first = Choice(result.text or "", thinking, result.tool_calls, cut, logprobs, stop)
    further = won.samples if won is not None and result.topology == "single" else ()
    return (first, *map(_choice, further))


def _choice(sample: Sample) -> Choice:
    cut = sample.finish_reason == "length"
    return Choice(sample.text, sample.thinking, sample.tool_calls, cut, sample.logprobs)


def _members(result: Result) -> str:
    """What each member of an ensemble said."""
    said = (answer for answer in result.answers if answer.error is None)
    return "\n\n".join(f"{answer.agent}: {answer.text.strip()}" for answer in said)


def winner(result: Result) -> Answer | None:
    """The answer whose text the result is; None where it is nobody's alone."""
    if result.topology != "ensemble":
        return result.answers[-1] if result.answers else None
    answers = [answer for answer in (*result.answers, *result.further_answers) if answer.error is None]
    return next((answer for answer in reversed(answers) if answer.text == result.text), None)


def usage(result: Result) -> Usage:
    """The tokens that a result took."""
    answers = (*result.answers, *result.further_answers)
    won = winner(result)
    return Usage(
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        generated_tokens=sum(answer.generated_tokens for answer in answers),
        winner_tokens=won.generated_tokens if won is not None else 0,
    )


def pieces(text: str) -> Iterator[str]:
    """A text that is there all at once, as a stream has it."""
    for start in range(0, len(text), PIECE_LENGTH):
        yield text[start : start + PIECE_LENGTH]
