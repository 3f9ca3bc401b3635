"""Which texts are scored after a prompt, and what came of each."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.evaluation.benchmarks.question import LETTERS, Question
from schemas.message import Struct


@dataclass(frozen=True)
class Continuation:
    """A `text` that is scored; the place of the option that it is, if it is one; whether it is `true`, if the
    question has statements."""

    text: str
    choice: int | None = None
    true: bool | None = None


class Scored(Struct):
    """The log probabilities (natural) of the tokens of a text that follows a prompt. `length` counts the
    characters of what it stands for; it is `greedy` if each token was the likeliest one."""

    text: str
    length: int
    choice: int | None = None
    true: bool | None = None
    logprobs: tuple[float, ...]
    greedy: bool

    @property
    def log_likelihood(self) -> float:
        """Of the whole text."""
        return sum(self.logprobs)


def continuations(question: Question, *, by_letter: bool) -> tuple[Continuation, ...]:
    """The options of a closed question, by their letters or as texts, then statements that are no options.

    A text that is both is scored once.
    """
    if by_letter:
        return tuple(Continuation(LETTERS[place], place) for place in range(len(question.choices)))
    labels = {each.text: each.true for each in question.statements}
    options = [Continuation(text, place, labels.get(text)) for place, text in enumerate(question.choices)]
    others = [Continuation(text, None, true) for text, true in labels.items() if text not in question.choices]
    return (*options, *others)
