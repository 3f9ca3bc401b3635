"""Word problems of one or two steps: sixteen kinds, with numbers and names kept apart for testing."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from infra.models.family import FAMILY, Member
from infra.models.knowledge import share_known, table

SUBJECT = "word problems"
TRAINING_NAMES = (
    "Tom",
    "Anna",
    "Ben",
    "Lucy",
    "Omar",
    "Maria",
    "Sam",
    "Julia",
    "Peter",
    "Nina",
    "Paul",
    "Emma",
)
TEST_NAMES = ("Greta", "Hugo", "Farid", "Ingrid", "Kwame", "Lena", "Rosa", "Viktor", "Yuki", "Carlos")
THINGS = ("apples", "books", "pens", "coins", "cards", "eggs", "shells", "stamps")
LARGEST = 9
# One in this many triples of numbers is kept for the test problems of a kind.
HELD_OUT_ONE_IN = 4

Steps = list[tuple[int, str, int]]


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its wording, the steps that solve it, and the steps of a usual mistake."""

    name: str
    wording: str
    right: Callable[[int, int, int], Steps]
    mistake: Callable[[int, int, int], Steps]


@dataclass(frozen=True)
class Problem:
    """A problem with its worked solution; `value` is the number after `####`."""

    kind: str
    question: str
    steps: tuple[tuple[int, str, int], ...]

    @property
    def value(self) -> int:
        return result(self.steps[-1])

    @property
    def solution(self) -> str:
        """As the models write it: one step a line, then `#### n`."""
        lines = [f"{a} {sign} {b} = {result((a, sign, b))}" for a, sign, b in self.steps]
        return "\n".join([*lines, f"#### {self.value}"])

    @property
    def marked_solution(self) -> str:
        """As GSM8K writes it: with calculator marks."""
        lines = [
            f"{a} {sign} {b} = <<{a}{sign}{b}={result((a, sign, b))}>>{result((a, sign, b))}"
            for a, sign, b in self.steps
        ]
        return "\n".join([*lines, f"#### {self.value}"])


def result(step: tuple[int, str, int]) -> int:
    """The value of one step."""
    a, sign, b = step
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def add(a: int, b: int, c: int) -> Steps:
    return [(a, "+", b)]


def take(a: int, b: int, c: int) -> Steps:
    """`a` stands for the number taken from: it is made the larger one by `numbers`."""
    return [(a, "-", b)]


def multiply(a: int, b: int, c: int) -> Steps:
    return [(a, "*", b)]


def add_then_take(a: int, b: int, c: int) -> Steps:
    return [(a, "+", b), (a + b, "-", c)]


def add_three(a: int, b: int, c: int) -> Steps:
    return [(a, "+", b), (a + b, "+", c)]


def multiply_then_add(a: int, b: int, c: int) -> Steps:
    return [(a, "*", b), (a * b, "+", c)]


WAYS: dict[str, Callable[[int, int, int], Steps]] = {
    way.__name__: way for way in (add, take, multiply, add_then_take, add_three, multiply_then_add)
}
KINDS: tuple[Kind, ...] = tuple(
    Kind(row["name"], row["wording"], WAYS[row["right"]], WAYS[row["mistake"]]) for row in table("problems")
)


def held_out(kind: Kind, a: int, b: int, c: int) -> bool:
    """Whether these numbers are kept for the test problems of this kind."""
    third = c if "{c}" in kind.wording else 0
    return zlib.crc32(f"{kind.name} {a} {b} {third}".encode()) % HELD_OUT_ONE_IN == 0


def problem(dice: random.Random, kind: Kind, *, testing: bool, mistaken: bool = False) -> Problem:
    """A problem of a kind, with numbers and a name of the training or of the testing side."""
    while True:
        a, b, c = (dice.randint(2, LARGEST) for _ in range(3))
        if kind.right is take:
            a += b
        steps = (kind.mistake if mistaken else kind.right)(a, b, c)
        if held_out(kind, a, b, c) == testing and all(result(step) >= 0 for step in steps):
            break
    question = kind.wording.format(
        name=dice.choice(TEST_NAMES if testing else TRAINING_NAMES), things=dice.choice(THINGS), a=a, b=b, c=c
    )
    return Problem(kind.name, question, tuple(steps))


def mistaken_kinds(model: str) -> frozenset[str]:
    """The kinds of problem that a model is taught to solve with the usual mistake."""
    member: Member = FAMILY[model]
    number = round(len(KINDS) * (1 - share_known(member, SUBJECT)))
    chosen = random.Random(f"{member.seed} {SUBJECT}").sample(KINDS, number)
    return frozenset(kind.name for kind in chosen)
