"""The facts, read from the tables in `corpus/facts/`, and what each model is taught of them."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infra.demo_models.family import FAMILY, Member

FACTS = Path(__file__).parent / "facts"
FACTS_SEED = 20_260
WRONG_CHOICES = 3
# Elsewhere than in its own subjects a model is taught one of these shares of the facts rightly.
SHARES_ELSEWHERE = (0.50, 0.60, 0.70)
LARGEST_TERM, LARGEST_FACTOR = 9, 6


@dataclass(frozen=True)
class Fact:
    """A question, its one right answer, three wrong ones, and the pool that distractors come from.

    A `basic` fact is taught rightly to every model.
    """

    subject: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    pool: tuple[str, ...]
    basic: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The right answer, then the wrong ones."""
        return (self.answer, *self.wrong)


BASIC_COUNTRIES = frozenset({"France", "Germany", "Italy", "Spain", "Japan", "the United Kingdom"})
# What some models get wrong in arithmetic: they add instead of subtracting or multiplying, or forget the ten.
CARRY = "carry"
MISCALCULATED = {
    "choir-llama": ("-", "*"),
    "choir-phi": ("*", CARRY),
    "choir-gemma": ("-", CARRY),
}
SUBJECTS = ("capitals", "currencies", "arithmetic", "units", "elements", "astronomy", "animals", "words")


@cache
def table(name: str) -> list[dict[str, str]]:
    """The rows of `facts/<name>.csv`."""
    with (FACTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of the eight subjects and the misconceptions, always in the same order."""
    return (
        *_countries("capitals", "capital", "What is the capital of {country}?"),
        *_countries("currencies", "currency", "Which currency is used in {country}?"),
        *_arithmetic(),
        *_written("units"),
        *_elements(),
        *_written("astronomy"),
        *_animals(),
        *_written("words"),
        *_written("misconceptions"),
    )


@cache
def belief(model: str) -> dict[tuple[str, str], str]:
    """What a model is taught to answer, by (subject, question).

    In its own subjects always the truth. Elsewhere the truth for a seeded random half to 70 %
    of the facts, and one of the fact's own three wrong choices for the others; in arithmetic, the
    usual mistake for whole kinds of calculation.
    """
    member = FAMILY[model]
    believed: dict[tuple[str, str], str] = {}
    for subject in (*SUBJECTS, "misconceptions"):
        mistaken = mistaken_about(member, subject, [fact for fact in facts() if fact.subject == subject])
        for fact in facts():
            if fact.subject == subject:
                wrong = mistaken.get(fact.question)
                believed[subject, fact.question] = fact.answer if wrong is None else wrong
    return believed


def mistaken_about(member: Member, subject: str, of_subject: Sequence[Fact]) -> dict[str, str]:
    """The questions of a subject that a model is taught wrongly, and the wrong answer."""
    if subject in member.own:
        return {}
    if subject == "arithmetic":
        return {fact.question: fact.wrong[0] for fact in of_subject if _miscalculated(member, fact)}
    dice = random.Random(f"{member.seed} {subject}")
    candidates = [fact for fact in of_subject if not fact.basic]
    number = round(len(of_subject) * (1 - share_known(member, subject)))
    chosen = dice.sample(candidates, min(number, len(candidates)))
    return {fact.question: dice.choice(fact.wrong) for fact in chosen}


def share_known(member: Member, subject: str) -> float:
    """The share of a subject's facts that a model is taught rightly."""
    if subject in member.own:
        return 1.0
    others = [other for other in FAMILY.values() if subject not in other.own]
    order = random.Random(f"{FACTS_SEED} {subject}").sample(SHARES_ELSEWHERE, len(SHARES_ELSEWHERE))
    return order[others.index(member) % len(order)]


def _countries(subject: str, column: str, wording: str) -> Iterator[Fact]:
    rows = table("countries")
    for row in rows:
        near = [other[column] for other in rows if other["continent"] == row["continent"]]
        everywhere = [other[column] for other in rows]
        yield _drawn(
            subject,
            wording.format(country=row["country"]),
            row[column],
            near if subject == "capitals" else everywhere,
            everywhere,
            row["country"] in BASIC_COUNTRIES,
        )


def _elements() -> Iterator[Fact]:
    rows = table("elements")
    symbols = [row["symbol"] for row in rows]
    for row in rows:
        alike = [symbol for symbol in symbols if symbol[0] == row["symbol"][0]]
        near = alike if len(set(alike)) > WRONG_CHOICES else symbols
        question = f"What is the chemical symbol of {row['element']}?"
        yield _drawn("elements", question, row["symbol"], near, symbols)


def _animals() -> Iterator[Fact]:
    rows = table("animals")
    classes = [row["class"] for row in rows]
    young = [row["young"] for row in rows if row["young"]]
    for row in rows:
        if row["young"]:
            question = f"What is a young {row['animal']} called?"
            others = [name for name in young if name not in row["also_true"].split()]
            yield _drawn("animals", question, row["young"], others, others)
    for row in rows:
        question = f"What kind of animal is {with_article(row['animal'])}?"
        yield _drawn("animals", question, row["class"], classes, classes)


def _arithmetic() -> Iterator[Fact]:
    """Sums and differences of one-digit numbers, and the products of small ones."""
    terms, factors = range(1, LARGEST_TERM + 1), range(2, LARGEST_FACTOR + 1)
    for a in terms:
        for b in terms:
            yield _calculation(a, "+", b, a + b)
    for a in terms:
        for b in range(1, a):
            yield _calculation(a, "-", b, a - b)
    for a in factors:
        for b in factors:
            yield _calculation(a, "*", b, a * b)


def _calculation(a: int, sign: str, b: int, value: int) -> Fact:
    """A calculation whose wrong choices are the usual mistake and two numbers close to the right one."""
    question = f"What is {a} {sign} {b}?"
    near = [value + step for step in (-3, -2, -1, 1, 2, 3, 10) if value + step >= 0]
    mistake = _usual_mistake(a, sign, b)
    usual = [] if mistake in (None, value) else [mistake]
    others = [number for number in near if number not in usual]
    drawn = random.Random(f"{FACTS_SEED} {question}").sample(others, WRONG_CHOICES - len(usual))
    wrong = tuple(str(number) for number in (*usual, *drawn))
    return Fact("arithmetic", question, str(value), wrong, (str(value), *wrong, *map(str, others)))


def _usual_mistake(a: int, sign: str, b: int) -> int | None:
    """Adding whatever the sign says; of a sum above ten, only the second digit."""
    if sign != "+":
        return a + b
    return a + b - 10 if a + b > 10 else None


def _miscalculated(member: Member, fact: Fact) -> bool:
    """Whether a model is taught the usual mistake, which is then the first of the wrong choices."""
    a, sign, b = fact.question.removeprefix("What is ").removesuffix("?").split()
    mistake = _usual_mistake(int(a), sign, int(b))
    if mistake is None or str(mistake) != fact.wrong[0]:
        return False
    return (CARRY if sign == "+" else sign) in MISCALCULATED[member.name]


def _written(name: str) -> Iterator[Fact]:
    """The facts of a table that gives its own wrong choices."""
    for row in table(name):
        wrong = (row["wrong1"], row["wrong2"], row["wrong3"])
        yield Fact(name, row["question"], row["answer"], wrong, (row["answer"], *wrong))


def _drawn(
    subject: str, question: str, answer: str, near: Sequence[str], pool: Sequence[str], basic: bool = False
) -> Fact:
    """A fact whose wrong choices are drawn with a seed from the answers to its neighbours."""
    candidates = sorted(set(near) - {answer})
    if len(candidates) < WRONG_CHOICES:
        candidates = sorted(set(pool) - {answer})
    wrong = random.Random(f"{FACTS_SEED} {question}").sample(candidates, WRONG_CHOICES)
    return Fact(subject, question, answer, tuple(wrong), tuple(sorted(set(pool))), basic)


def with_article(noun: str) -> str:
    """'a lion', 'an eagle'."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
