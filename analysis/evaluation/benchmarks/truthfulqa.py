"""TruthfulQA (Lin et al. 2022), asked as `mc1`: one true choice among several.

`multiple_choice` files have `mc1_targets {choices, labels}`, the authors' `mc_task.json` has `{choice:
label}`. The `generation` files and the authors' CSV have no such choices: the best answer and the incorrect
ones are taken for them. The true choice stands first in all of these, so the options must be shuffled.
"""

from __future__ import annotations

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import Question, closed
from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest

TOPIC = "misconceptions"


def truthfulqa(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape."""
    text = columns.text(row, number, "question")
    choices, right = _targets(row, number)
    topic = row.get("category") or row.get("Category") or TOPIC
    return closed(number, text, choices, right, str(topic))


def _targets(row: Row, number: int) -> tuple[list[str], int]:
    if "best_answer" in row or "Best Answer" in row:
        best = columns.text(row, number, "best_answer", "Best Answer")
        return [best, *_incorrect(row, number)], 0
    targets = columns.mapping(row, number, "mc1_targets")
    if "choices" not in targets:  # the authors' mc_task.json has each choice with its label
        given = {choice: label for choice, label in targets.items() if label is not None}
        targets = {"choices": list(given), "labels": list(given.values())}
    choices, labels = targets.get("choices"), targets.get("labels")
    if not isinstance(choices, list) or not isinstance(labels, list) or len(choices) != len(labels):
        raise InvalidRequest(f"data: row {number}: mc1_targets needs as many choices as labels", field="data")
    if labels.count(1) != 1:
        raise InvalidRequest(f"data: row {number}: mc1_targets needs exactly one label 1", field="data")
    return [str(choice) for choice in choices], labels.index(1)


def _incorrect(row: Row, number: int) -> list[str]:
    """A list, or as in the authors' CSV one text with semicolons."""
    answers = columns.first_of(row, number, "incorrect_answers", "Incorrect Answers")
    parts = answers.split(";") if isinstance(answers, str) else list(answers)
    return [str(part).strip() for part in parts if str(part).strip()]
