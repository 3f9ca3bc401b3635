"""What is read from texts is what a person reads in them, as `judged_answers.txt` has it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from schemas.commands import AnswerKind
from services.aggregator.reading.ballots import normalise

JUDGED = Path(__file__).with_name("judged_answers.txt")


class Judged(NamedTuple):
    """A text, what is asked, and the answer that a person sees in it."""

    kind: AnswerKind
    options: tuple[str, ...]
    answer: str | None
    text: str


def judged() -> list[Judged]:
    """The file's lines, in order."""
    found: list[Judged] = []
    kind: AnswerKind = "auto"
    options: tuple[str, ...] = ()
    for line in JUDGED.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            said, _, listed = line.strip("[]").partition(": ")
            kind = "choice" if said == "choice" else "number"
            options = tuple(listed.split("; ")) if listed else ()
        elif line.strip() and not line.startswith("#"):
            answer, _, text = line.partition(" | " if " | " in line else " |")
            found.append(Judged(kind, options, None if answer == "-" else answer, text.replace("⏎", "\n")))
    return found


ALL = judged()


def test_what_is_read_is_what_a_person_reads() -> None:
    read = [(case, normalise(case.text, case.kind, case.options)) for case in ALL]
    assert [(case.text, case.answer, answer) for case, answer in read if answer != case.answer] == []


def test_thoughts_and_hostile_lengths_cost_no_more_than_they_must() -> None:
    """Each of these would take minutes if a pattern looked at every way to read it."""
    for text in ("A, " * 50_000, "<think>" * 20_000, "not " * 50_000 + "A", "(" * 100_000, "A or " * 30_000):
        normalise(text, "choice", ("Paris", "London"))
    for text in ("1 000" * 30_000, "12 or " * 30_000, "\\frac{" * 30_000):
        normalise(text, "number")


def test_the_texts_are_many_and_of_many_kinds() -> None:
    assert len(ALL) >= 220
    assert sum(case.answer is None for case in ALL) >= 80
