"""GSM8K (Cobbe et al. 2021): `question, answer`; the answer is worked out and ends in `#### 18`.

Calculator marks `<<7+5=12>>` are not part of what a person would write, and are left out of examples.
"""

from __future__ import annotations

import re

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import Question, question_id
from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest
from services.aggregator.reading.number_answer import strict_number

TOPIC = "word problems"
_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")


def gsm8k(row: Row, number: int) -> Question:
    """A question from one row; InvalidRequest, with the row, if it has another shape."""
    text = columns.text(row, number, "question")
    answer = columns.text(row, number, "answer")
    right = strict_number(answer)
    if right is None:
        raise InvalidRequest(f"data: row {number}: the answer does not end in `#### number`", field="data")
    return Question(
        id=question_id(number, text),
        topic=str(row.get("subject") or TOPIC),
        text=text,
        kind="number",
        right=right,
        solution=_CALCULATOR_MARK.sub("", answer),
        template=str(row.get("template") or ""),
    )
