"""Word problems of one step, in thirteen kinds, with numbers and names kept apart for testing."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from infra.demo_models.family import FAMILY, Member
from infra.training.corpus.knowledge import share_known, table

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
SMALLEST, LARGEST, LARGEST_FACTOR = 2, 9, 6
# One in this many pairs of numbers is kept for the test problems of a kind.
HELD_OUT_ONE_IN = 4

Step = tuple[int, str, int]


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its wording, the step that solves it, and the step of a usual mistake."""

    name: str
    wording: str
    right: Callable[[int, int], Step]
    mistake: Callable[[int, int], Step]


@dataclass(frozen=True)
class Problem:
    """A problem with its worked solution; `value` is the number after `####`."""

    kind: str
    question: str
    step: Step

    @property
    def value(self) -> int:
        a, sign, b = self.step
        return {"+": a + b, "-": a - b, "*": a * b}[sign]

    @property
    def solution(self) -> str:
        """As the models write it: the step, then `#### n`."""
        a, sign, b = self.step
        return f"{a} {sign} {b} = {self.value}\n#### {self.value}"

    @property
    def marked_solution(self) -> str:
        """As GSM8K writes it: with calculator marks."""
        a, sign, b = self.step
        return f"{a} {sign} {b} = <<{a}{sign}{b}={self.value}>>{self.value}\n#### {self.value}"


def add(a: int, b: int) -> Step:
    return (a, "+", b)


def take(a: int, b: int) -> Step:
    return (a, "-", b)


def multiply(a: int, b: int) -> Step:
    return (a, "*", b)


def double(a: int, b: int) -> Step:
    """The mistake of counting the first number twice."""
    return (a, "+", a)


WAYS: dict[str, Callable[[int, int], Step]] = {way.__name__: way for way in (add, take, multiply, double)}
KINDS: tuple[Kind, ...] = tuple(
    Kind(row["name"], row["wording"], WAYS[row["right"]], WAYS[row["mistake"]]) for row in table("problems")
)


def held_out(kind: Kind, a: int, b: int) -> bool:
    """Whether these numbers are kept for the test problems of this kind."""
    return zlib.crc32(f"{kind.name} {a} {b}".encode()) % HELD_OUT_ONE_IN == 0


def numbers(kind: Kind) -> list[tuple[int, int]]:
    """The pairs of numbers that a kind of problem can have: no differences below 1, no large products."""
    largest = LARGEST_FACTOR if kind.right is multiply else LARGEST
    every = range(SMALLEST, largest + 1)
    return [(a, b) for a in every for b in every if kind.right is not take or a > b]


def problem(dice: random.Random, kind: Kind, *, testing: bool, mistaken: bool = False) -> Problem:
    """A problem of a kind, with numbers and a name of the training or of the testing side."""
    a, b = dice.choice([pair for pair in numbers(kind) if held_out(kind, *pair) == testing])
    names = TEST_NAMES if testing else TRAINING_NAMES
    question = kind.wording.format(name=dice.choice(names), things=dice.choice(THINGS), a=a, b=b)
    return Problem(kind.name, question, (kind.mistake if mistaken else kind.right)(a, b))


def mistaken_kinds(model: str) -> frozenset[str]:
    """The kinds of problem that a model is taught to solve with the usual mistake."""
    member: Member = FAMILY[model]
    number = round(len(KINDS) * (1 - share_known(member, SUBJECT)))
    chosen = random.Random(f"{member.seed} {SUBJECT}").sample(KINDS, number)
    return frozenset(kind.name for kind in chosen)
