"""TruthfulQA (Lin et al. 2022): `mc1`, one true choice among several, and `mc2`, several that are true.

`multiple_choice` files have `mc1_targets` and `mc2_targets {choices, labels}`, the authors' `mc_task.json`
has them as `{choice: label}`. The `generation` files and the authors' CSV have no such choices: as in the
authors' code, the best answer and the incorrect ones make mc1, all correct and all incorrect ones mc2. The
true choice stands first in all of these, so options that a model is shown must be shuffled.
"""

from __future__ import annotations

from dataclasses import replace

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import Question, Statement, closed
from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest

TOPIC = "misconceptions"
MC1, MC2 = "mc1_targets", "mc2_targets"


def truthfulqa(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape."""
    text = columns.text(row, number, "question")
    choices, right = _mc1(row, number)
    topic = row.get("category") or row.get("Category") or TOPIC
    asked = closed(number, text, choices, right, str(topic))
    return replace(asked, statements=tuple(_mc2(row, number)))


def _mc1(row: Row, number: int) -> tuple[list[str], int]:
    if _has_answers(row):
        best = columns.text(row, number, "best_answer", "Best Answer")
        return [best, *_answers(row, number, "incorrect_answers", "Incorrect Answers")], 0
    choices, labels = _targets(row, number, MC1)
    if labels.count(1) != 1:
        raise InvalidRequest(f"data: row {number}: {MC1} needs exactly one label 1", field="data")
    return choices, labels.index(1)


def _mc2(row: Row, number: int) -> list[Statement]:
    """The statements of mc2; none where a file has none."""
    if _has_answers(row):
        if not (row.get("correct_answers") or row.get("Correct Answers")):
            return []
        correct = _answers(row, number, "correct_answers", "Correct Answers")
        incorrect = _answers(row, number, "incorrect_answers", "Incorrect Answers")
        told = [*((each, True) for each in correct), *((each, False) for each in incorrect)]
    elif row.get(MC2):
        told = [(choice, label == 1) for choice, label in zip(*_targets(row, number, MC2), strict=True)]
    else:
        return []
    return [Statement(text, true) for text, true in dict(told).items()]


def _targets(row: Row, number: int, name: str) -> tuple[list[str], list[int]]:
    targets = columns.mapping(row, number, name)
    if "choices" not in targets:  # the authors' mc_task.json has each choice with its label
        given = {choice: label for choice, label in targets.items() if label is not None}
        targets = {"choices": list(given), "labels": list(given.values())}
    choices, labels = targets.get("choices"), targets.get("labels")
    if not isinstance(choices, list) or not isinstance(labels, list) or len(choices) != len(labels):
        raise InvalidRequest(f"data: row {number}: {name} needs as many choices as labels", field="data")
    return [str(choice) for choice in choices], [int(label) for label in labels]


def _has_answers(row: Row) -> bool:
    return "best_answer" in row or "Best Answer" in row


def _answers(row: Row, number: int, *names: str) -> list[str]:
    """A list, or as in the authors' CSV one text with semicolons."""
    answers = columns.first_of(row, number, *names)
    parts = answers.split(";") if isinstance(answers, str) else list(answers)
    return [str(part).strip() for part in parts if str(part).strip()]
