"""IFEval (Zhou et al. 2023, arXiv:2311.07911): prompts with instructions that programs can check.

A row of Google's `input_data.jsonl`, and of the Hub's file (google/IFEval), has `key`, `prompt`,
`instruction_id_list` and `kwargs`, which has the settings of each instruction.
"""

from __future__ import annotations

import json
from typing import Any

from analysis.evaluation.benchmarks import columns
from analysis.evaluation.benchmarks.question import Instruction, Question, question_id
from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest


def ifeval(row: Row, number: int) -> Question:
    """A prompt with its instructions; InvalidRequest, with the row, if it has another shape."""
    prompt = columns.text(row, number, "prompt")
    ids = columns.listed(row, number, "instruction_id_list")
    said = columns.listed(row, number, "kwargs")
    if not ids or len(ids) != len(said):
        raise InvalidRequest(
            f"data: row {number}: {len(ids)} instructions in instruction_id_list, {len(said)} entries in "
            "kwargs; there has to be one for each",
            field="data",
        )
    return Question(
        id=question_id(number, prompt),
        topic=str(ids[0]).partition(":")[0],
        text=prompt,
        kind="text",
        right="",
        instructions=tuple(
            Instruction(kind=str(kind), settings=_settings(each, number))
            for kind, each in zip(ids, said, strict=True)
        ),
    )


def _settings(said: Any, number: int) -> dict[str, Any]:
    """What is set: files that are tables have a column for every setting of any instruction."""
    said = json.loads(said) if isinstance(said, str) else said
    if said is not None and not isinstance(said, dict):
        raise InvalidRequest(f"data: row {number}: an entry of kwargs is no object", field="data")
    return {name: _plain(value) for name, value in (said or {}).items() if value is not None}


def _plain(value: Any) -> Any:
    """Whole numbers as such: a column with gaps may have them with a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
