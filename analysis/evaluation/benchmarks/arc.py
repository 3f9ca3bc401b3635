"""ARC (Clark et al. 2018, arXiv:1803.05457), Easy and Challenge: an option is chosen by its likelihood.

Two published shapes, of the same questions: the authors' JSON lines have `id`, `question {stem, choices
[{text, label}]}` and `answerKey`; the Hub's Parquet files (allenai/ai2_arc) have `id`, `question`, `choices
{text[], label[]}` and `answerKey`. Labels are letters or numbers from 1, and a few questions have three
options or five.
"""

from __future__ import annotations

from typing import Any

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import Question, closed
from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest

TOPIC = "science"


def arc(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape."""
    asked = columns.first_of(row, number, "question")
    stem, given = (asked.get("stem"), asked.get("choices")) if isinstance(asked, dict) else (asked, None)
    texts, labels = _choices(columns.first_of(row, number, "choices") if given is None else given, number)
    key = columns.text(row, number, "answerKey")
    if key not in labels:
        raise InvalidRequest(
            f"data: row {number}: answerKey {key!r} is none of its labels {', '.join(labels)}", field="data"
        )
    text = columns.text({"question": stem}, number, "question")
    return closed(number, text, texts, labels.index(key), TOPIC)


def _choices(given: Any, number: int) -> tuple[list[str], list[str]]:
    """The texts of the options, and their labels."""
    if (
        isinstance(given, dict)
        and isinstance(given.get("text"), list)
        and isinstance(given.get("label"), list)
    ):
        pairs = list(zip(given["text"], given["label"], strict=False))
    elif isinstance(given, list) and all(isinstance(each, dict) for each in given):
        pairs = [(each.get("text"), each.get("label")) for each in given]
    else:
        raise InvalidRequest(f"data: row {number}: choices have no text and label", field="data")
    if any(text is None or label is None for text, label in pairs):
        raise InvalidRequest(f"data: row {number}: a choice lacks its text or its label", field="data")
    return [str(text) for text, _ in pairs], [str(label) for _, label in pairs]
