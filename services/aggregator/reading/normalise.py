"""Normalises a model's text to the answer that is voted on; a text that cannot be read abstains.

Pure functions. Votes are counted by equality, so two texts that mean the same must come out the
same: `(B)` and `Answer: B`; `$1,000.` and `1000`; `The Blue Whale!` and `blue whale`.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.commands import AnswerKind
from services.aggregator.reading.choice_answer import choice
from services.aggregator.reading.number_answer import number
from services.aggregator.reading.text_answer import open_answer, short_text

__all__ = ["normalise"]


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
