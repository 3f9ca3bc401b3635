"""choir-held-out: sums and word problems in a wording, or of a size, that no training text has.

The demo models learn sums of one digit and thirteen wordings of one step (`infra/training`). Nothing here is
of these: sums of two digits and of three terms, the same steps in other words, problems of two steps, with
the numbers and names that are kept from training. Nobody trains for it, and nothing is chosen by it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from infra.training.corpus.wordproblems import KINDS, TEST_NAMES, THINGS, held_out, numbers

PER_TEMPLATE = 12
MOST_DRAWS = 1_000
TENS = range(12, 50)
"""Training has sums of numbers below 10."""
OTHER_WORDS = {
    "more": "To {a} {things} {name} adds {b} more. What number of {things} is that?",
    "boxes": "One shelf holds {a} {things}, another one {b}. Count all {things} on both shelves.",
    "giving": "Out of {a} {things} {name} hands {b} to a friend. What number of {things} remains?",
    "getting off": "{name} drives a bus with {a} people, and {b} leave it. What number of people rides on?",
    "bags": "Every one of {a} crates is filled with {b} {things}. What is the number of all {things}?",
    "pages": "Each morning {name} writes {a} letters. What number of letters does that make in {b} mornings?",
}
"""Another wording for a kind of problem, by its name."""
TWO_STEPS: dict[str, tuple[str, Callable[[int, int, int], int], str]] = {
    "more, then giving": (
        "{name} has {a} {things}, is given {b}, and then gives away {c}. How many {things} are left?",
        lambda a, b, c: a + b - c,
        "{a} + {b} = {ab}\n{ab} - {c} = {value}",
    ),
    "bags and one more": (
        "There are {a} bags of {b} {things} each, and {c} {things} beside them. How many {things} are there?",
        lambda a, b, c: a * b + c,
        "{a} * {b} = {ab}\n{ab} + {c} = {value}",
    ),
}


@dataclass(frozen=True)
class Made:
    """A question, its solution without the last line, and its number."""

    question: str
    worked: str
    value: int
    template: str

    @property
    def row(self) -> dict[str, Any]:
        """In GSM8K's columns, and what it was made from."""
        return {
            "question": self.question,
            "answer": f"{self.worked}\n#### {self.value}",
            "template": self.template,
        }


def held_out_rows(seed: int) -> list[dict[str, Any]]:
    """The rows of the set: as many of each template, no two alike."""
    dice = random.Random(f"{seed} held out")
    rows: dict[str, dict[str, Any]] = {}
    for maker in _makers():
        wanted = len(rows) + PER_TEMPLATE
        for _ in range(MOST_DRAWS):
            made = maker(dice)
            rows.setdefault(made.question, made.row)
            if len(rows) == wanted:
                break
    return list(rows.values())


def _makers() -> Iterator[Callable[[random.Random], Made]]:
    yield _tens
    yield _three
    for name in OTHER_WORDS:
        yield partial(_in_other_words, name)
    for name in TWO_STEPS:
        yield partial(_two_steps, name)


def _tens(dice: random.Random) -> Made:
    a, b = dice.choice(TENS), dice.choice(TENS)
    return Made(f"What is {a} + {b}?", f"{a} + {b} = {a + b}", a + b, "sum of two digits")


def _three(dice: random.Random) -> Made:
    a, b, c = (dice.randint(2, 9) for _ in range(3))
    worked = f"{a} + {b} = {a + b}\n{a + b} + {c} = {a + b + c}"
    return Made(f"What is {a} + {b} + {c}?", worked, a + b + c, "sum of three")


def _in_other_words(name: str, dice: random.Random) -> Made:
    kind = next(kind for kind in KINDS if kind.name == name)
    a, b = dice.choice([pair for pair in numbers(kind) if held_out(kind, *pair)])
    left, sign, right = kind.right(a, b)
    value = {"+": left + right, "-": left - right, "*": left * right}[sign]
    question = OTHER_WORDS[name].format(name=dice.choice(TEST_NAMES), things=dice.choice(THINGS), a=a, b=b)
    return Made(question, f"{left} {sign} {right} = {value}", value, f"{name}, in other words")


def _two_steps(name: str, dice: random.Random) -> Made:
    wording, solved, worked = TWO_STEPS[name]
    a, b, c = dice.randint(3, 6), dice.randint(3, 6), dice.randint(2, 5)
    words = {"name": dice.choice(TEST_NAMES), "things": dice.choice(THINGS), "a": a, "b": b, "c": c}
    value = solved(a, b, c)
    ab = a * b if "*" in worked else a + b
    solution = worked.format(**words, ab=ab, value=value)
    return Made(wording.format(**words), solution, value, f"two steps: {name}")
