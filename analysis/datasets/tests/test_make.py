"""The question sets: made byte for byte again from their seed, and in the public formats."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from analysis.datasets.make import FOLDER, SEED, main, sets
from infra.training.corpus.knowledge import facts
from infra.training.corpus.wordproblems import KINDS, TEST_NAMES, THINGS, TRAINING_NAMES

FILES = list(sets(SEED))


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / path).read_text(encoding="utf-8").splitlines()]


def test_the_files_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    main(tmp_path, SEED)
    for path in FILES:
        assert (tmp_path / path).read_bytes() == (FOLDER / path).read_bytes(), path


def test_another_seed_makes_other_files(tmp_path: Path) -> None:
    main(tmp_path, SEED + 1)
    assert (tmp_path / "choir-mmlu/test.jsonl").read_bytes() != (
        FOLDER / "choir-mmlu/test.jsonl"
    ).read_bytes()


def test_mmlu_has_its_columns_and_enough_questions_of_enough_subjects() -> None:
    dev, test = rows("choir-mmlu/dev.jsonl"), rows("choir-mmlu/test.jsonl")
    for row in (*dev, *test):
        assert list(row) == ["question", "subject", "choices", "answer"]
        assert len(set(row["choices"])) == 4
        assert row["answer"] in range(4)
    assert len(test) >= 300
    assert len({row["subject"] for row in test}) >= 6
    assert set(Counter(row["subject"] for row in dev).values()) == {5}


def test_no_dev_question_is_a_test_question() -> None:
    dev, test = rows("choir-mmlu/dev.jsonl"), rows("choir-mmlu/test.jsonl")
    assert {row["question"] for row in dev}.isdisjoint(row["question"] for row in test)


def test_the_right_answers_stand_evenly_in_all_four_places() -> None:
    places = Counter(row["answer"] for row in rows("choir-mmlu/test.jsonl"))
    assert max(places.values()) < 1.4 * min(places.values())


def test_every_word_problem_ends_in_its_number_and_its_marks_add_up() -> None:
    problems = rows("choir-gsm8k/test.jsonl")
    assert len({row["question"] for row in problems}) == len(problems) >= 200
    for row in problems:
        assert list(row) == ["question", "answer", "template"]
        worked, _, final = row["answer"].rpartition("\n#### ")
        sums = [mark.split(">>")[0] for mark in worked.split("<<")[1:]]
        for left, _, right in (one.partition("=") for one in sums):
            assert calculated(left) == int(right)
        assert int(final) == int(sums[-1].partition("=")[2]) >= 0


def calculated(text: str) -> int:
    """The value of 'a+b', 'a-b' or 'a*b'."""
    for sign in "+-*":
        left, found, right = text.partition(sign)
        if found:
            return {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[
                sign
            ]
    raise AssertionError(text)


def test_truthfulqa_has_its_layout_with_the_true_choice_first() -> None:
    questions = rows("choir-truthfulqa/multiple_choice.jsonl")
    assert len({row["question"] for row in questions}) == len(questions) >= 60
    for row in questions:
        assert list(row) == ["question", "mc1_targets", "mc2_targets"]
        for targets in (row["mc1_targets"], row["mc2_targets"]):
            assert targets["labels"] == [1, 0, 0, 0]
            assert len(set(targets["choices"])) == 4


@pytest.mark.parametrize(
    "question,right",
    [
        ("What is the capital of Mongolia?", "Ulaanbaatar"),
        ("What is the chemical symbol of tungsten?", "W"),
        ("What is a young shark called?", "pup"),
    ],
)
def test_known_questions_have_their_known_answers(question: str, right: str) -> None:
    row = next(
        row
        for path in ("choir-mmlu/dev.jsonl", "choir-mmlu/test.jsonl")
        for row in rows(path)
        if row["question"] == question
    )
    assert row["choices"][row["answer"]] == right


def test_nothing_of_the_held_out_set_is_in_a_training_text() -> None:
    """No question is one of training, whatever its numbers: sums are of other sizes, wordings are others."""
    held_out = rows("choir-held-out/test.jsonl")
    assert set(Counter(row["template"] for row in held_out).values()) == {12}
    assert len({row["question"] for row in held_out}) == len(held_out) == 120
    taught = {pattern(fact.question) for fact in facts()} | {pattern(kind.wording) for kind in KINDS}
    for row in held_out:
        assert pattern(row["question"]) not in taught or row["template"] == "sum of two digits", row
        assert row["question"] not in {fact.question for fact in facts()}
        *steps, final = row["answer"].splitlines()
        for step in steps:
            left, sign, right, _, value = step.split()
            one, other = int(left), int(right)
            assert int(value) == {"+": one + other, "-": one - other, "*": one * other}[sign], row
        assert final == f"#### {value}"


def pattern(question: str) -> str:
    """A question without its numbers, names and things."""
    words = re.sub(r"\{a\}|\{b\}|\d+", "#", question)
    names = "|".join((*TRAINING_NAMES, *TEST_NAMES, r"\{name\}"))
    return re.sub(r"|".join((*THINGS, r"\{things\}")), "things", re.sub(names, "Name", words))
