"""A question of a benchmark, in the one form that all of them are read into."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from schemas.errors import InvalidRequest
from schemas.message import Struct

LETTERS = string.ascii_uppercase

Kind = Literal["choice", "number", "text"]


@dataclass(frozen=True)
class Statement:
    """An answer that a file has beside the options, and whether it is true."""

    text: str
    true: bool


class Instruction(Struct):
    """What a prompt asks of the text: a kind that a program can check, and its settings."""

    kind: str
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """`right` is the letter of an option as `choices` has them, or a plain number; of a text that is checked
    by its `instructions` there is none.

    `solution` is what stands after the question where it is shown as an example. `template` is what the
    question was made from, as others were, if its file says so: such questions are no independent witnesses.
    `statements` are answers of which several may be true, where a file has such (TruthfulQA's mc2).
    """

    id: str
    topic: str
    text: str
    kind: Kind
    right: str
    choices: tuple[str, ...] = ()
    solution: str = ""
    template: str = ""
    statements: tuple[Statement, ...] = ()
    instructions: tuple[Instruction, ...] = ()

    def shuffled(self, seed: str) -> Question:
        """The same question with its options in another order, which seed and question decide."""
        if not self.choices:
            return self
        order = list(range(len(self.choices)))
        random.Random(f"{seed} {self.id}").shuffle(order)
        right = LETTERS[order.index(LETTERS.index(self.right))]
        return replace(self, choices=tuple(self.choices[i] for i in order), right=right)


def question_id(row: int, text: str, choices: Sequence[str] = ()) -> str:
    """`00012-1f3a9c0b`: its row in the file, and a digest that tells another question at the same place."""
    digest = hashlib.sha256("\n".join((text, *choices)).encode(errors="surrogatepass")).hexdigest()
    return f"{row:05d}-{digest[:8]}"


def closed(row: int, text: str, choices: Sequence[str], right: int, topic: str) -> Question:
    """A multiple-choice question; InvalidRequest, with the row, if it is none."""
    if not 2 <= len(choices) <= len(LETTERS):
        raise InvalidRequest(
            f"row {row}: {len(choices)} choices; 2 to {len(LETTERS)} can be asked", field="data"
        )
    if not 0 <= right < len(choices):
        raise InvalidRequest(
            f"data: row {row}: answer {right} is none of its {len(choices)} choices", field="data"
        )
    return Question(
        id=question_id(row, text, choices),
        topic=topic,
        text=text,
        kind="choice",
        right=LETTERS[right],
        choices=tuple(choices),
        solution=LETTERS[right],
    )
