"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): which of four endings goes on with a context.

The published JSON lines (and the Hub's Parquet, Rowan/hellaswag) have `ind`, `activity_label`, `ctx_a`,
`ctx_b`, `ctx`, `endings` and `label`, a number that is a text on the Hub; that of the test split is hidden.
The texts are cleaned as lm-evaluation-harness does, so that figures are of the same task: the activity stands
before the context, the second part of the context begins with a capital, and marks of WikiHow in brackets are
left out.
"""

from __future__ import annotations

import re

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import Question, closed
from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest

_TITLE = " [title]"
_MARK = re.compile(r"\[.*?\]")


def hellaswag(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape, or no label."""
    activity = columns.text(row, number, "activity_label")
    begun = columns.text(row, number, "ctx_a")
    going_on = str(row.get("ctx_b") or "")
    endings = columns.listed(row, number, "endings")
    label = str(row.get("label") if row.get("label") is not None else "").strip()
    if not label.isdecimal():
        raise InvalidRequest(
            f"data: row {number} has no label: the test split's are not published, the validation split has "
            "them",
            field="data",
        )
    text = cleaned(f"{activity}: {begun} {going_on.capitalize()}")
    return closed(number, text, [cleaned(str(each)) for each in endings], int(label), activity)


def cleaned(text: str) -> str:
    """A text without WikiHow's marks."""
    return _MARK.sub("", text.strip().replace(_TITLE, ". ")).replace("  ", " ")
