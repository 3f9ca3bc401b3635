"""MMLU-Pro (Wang et al. 2024, arXiv:2406.01574): `question, options (up to 10), answer (a letter), category`.

Its authors ask for a chain of thought; here it is asked as MMLU is, unless a prompt is named, and that is
another task than the one of their figures.
"""

from __future__ import annotations

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.mmlu import ANY_SUBJECT, answer_index
from analysis.evaluation.benchmarks.question import Question, closed
from analysis.evaluation.benchmarks.rows import Row

NOT_AVAILABLE = "N/A"
"""What the file fills the list of options up with in some versions; it is no option."""


def mmlu_pro(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape."""
    options = [str(option) for option in columns.listed(row, number, "options") if option != NOT_AVAILABLE]
    return closed(
        number,
        columns.text(row, number, "question"),
        options,
        answer_index(columns.first_of(row, number, "answer_index", "answer"), number),
        str(row.get("category") or ANY_SUBJECT),
    )
