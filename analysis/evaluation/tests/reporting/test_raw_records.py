"""Raw records say what was asked in every round, not only in the first."""

from __future__ import annotations

import hashlib
import json

from analysis.evaluation.reporting.raw_records import raw_records
from analysis.evaluation.tests.kept import WAYS, answer, exchange
from schemas.ensembles.rounds import DEBATE, PREDICTION


def test_a_second_answer_stands_with_the_prompt_that_it_answers() -> None:
    further = [answer("one", "red", DEBATE), answer("two", "red", DEBATE), answer("one", "red", PREDICTION)]
    kept = exchange(0, "A", {"one": "red", "two": "green"}, further=further)
    first, _, debate, other, prediction = raw_records([kept], WAYS)
    said = json.loads(debate["prompt"])
    assert [turn["role"] for turn in said] == ["user", "assistant", "user"]
    assert (said[0]["content"], said[1]["content"]) == (kept.prompt, "red")
    assert "green" in said[2]["content"] and "green" in json.loads(other["prompt"])[1]["content"]
    assert "most of them" in json.loads(prediction["prompt"])[0]["content"]
    assert first["prompt"] == kept.prompt
    for row in (debate, other, prediction):
        assert row["prompt_sha256"] == hashlib.sha256(row["prompt"].encode()).hexdigest()


def test_the_place_in_the_order_of_learning_and_option_probabilities_are_kept() -> None:
    said = answer("one", "red").model_copy(update={"option_probabilities": {"A": 0.75, "B": 0.25}})
    kept = exchange(7, "A", {"one": "red"})
    result = kept.result.model_copy(update={"answers": (said,)}) if kept.result else None
    (row,) = raw_records([kept.model_copy(update={"result": result})], WAYS)
    assert (row["position"], row["kind"]) == (7, "choice")
    assert row["option_probabilities"] == {"A": 0.75, "B": 0.25}
