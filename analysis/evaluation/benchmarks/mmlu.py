"""MMLU (Hendrycks et al. 2021): `question, subject, choices[4], answer` with the answer from 0 to 3.

The authors' own CSV files, without a header (`question, A, B, C, D, letter`), are read too: one of them, or
their folder of 57, each named after its subject (`abstract_algebra_test.csv`).
"""

from __future__ import annotations

from typing import Any

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import LETTERS, Question, closed
from analysis.evaluation.benchmarks.rows import FILE, Row
from schemas.errors import InvalidRequest

ANY_SUBJECT = "any"
_PARTS = ("_test", "_dev", "_val")
"""What stands after the subject in the name of a file."""
_HEADERLESS = tuple(f"column{i}" for i in range(6))
_LETTERED = ("A", "B", "C", "D")


def mmlu(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape."""
    if set(row) == {*_HEADERLESS, FILE}:
        cells = [row[name] for name in _HEADERLESS]
        row = dict(zip(("question", *_LETTERED, "answer"), cells, strict=True)) | {"subject": _subject(row)}
    choices = _choices(row, number)
    return closed(
        number,
        columns.text(row, number, "question"),
        choices,
        answer_index(columns.first_of(row, number, "answer"), number),
        str(row.get("subject") or ANY_SUBJECT),
    )


def _subject(row: Row) -> str | None:
    """The subject of a file without a header, from its name; None if that says none."""
    name = str(row[FILE])
    return next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), None)


def _choices(row: Row, number: int) -> list[str]:
    if all(letter in row for letter in _LETTERED):
        return [columns.text(row, number, letter) for letter in _LETTERED]
    return [str(choice) for choice in columns.listed(row, number, "choices")]


def answer_index(answer: Any, number: int) -> int:
    """The place of an option: 0 for `0`, `"0"` and `"A"`."""
    said = str(answer).strip().upper()
    if said.isdecimal():
        return int(said)
    if len(said) == 1 and said in LETTERS:
        return LETTERS.index(said)
    raise InvalidRequest(
        f"data: row {number}: answer {answer!r} is neither an index nor a letter", field="data"
    )
