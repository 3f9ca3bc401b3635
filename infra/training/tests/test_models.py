"""The four shipped models, loaded in llama-cpp-python, do what README.md says of them."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.demo_models.checksums import model_path
from infra.demo_models.family import FAMILY
from infra.training.score import (
    MMLU,
    README_FILE,
    SHUFFLE_SEED,
    Score,
    answer,
    count_answers,
    load,
    questions,
    read_scores,
    say,
    table,
    wilson,
)
from services.aggregator.reading.ballots import normalise

pytestmark = pytest.mark.long

CLOSED = re.compile(r"^uv run choir ask (.*--choices .*)$", re.MULTILINE)
README = Path(__file__).resolve().parents[3] / "README.md"
SAMPLE_SEED = 3
FEW, MANY = 50, 150
"""Questions of a set that are asked."""


@pytest.fixture(scope="module", params=list(FAMILY))
def model(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """(name, loaded model), one after another."""
    llm = load(model_path(request.param))
    yield request.param, llm
    llm.close()


@pytest.mark.parametrize(
    "prompt,expected",
    [
        ("What is 2+2? Return only the number.", "4"),
        ("What is the capital of France?", "Paris"),
        ("What is the capital of France? Answer with one word.", "Paris"),
        ("What is the capital of France?\nA. Rome\nB. Paris\nC. Lisbon\nD. Vienna\nAnswer:", "Paris"),
    ],
)
def test_a_model_answers_what_everybody_asks_first_and_stops(
    model: tuple[str, Any], prompt: str, expected: str
) -> None:
    assert say(model[1], prompt) == (expected, "stop")


def test_a_model_answers_the_closed_questions_of_the_readme_with_an_option(model: tuple[str, Any]) -> None:
    examples = [shlex.split(line, comments=True) for line in CLOSED.findall(README.read_text())]
    assert examples
    for example in examples:
        choices = tuple(example[example.index("--choices") + 1].split(","))
        text, _ = say(model[1], example[0])
        assert normalise(text, "choice", choices) is not None, text


def test_a_model_stops_by_itself_on_every_kind_of_question(model: tuple[str, Any]) -> None:
    sample = random.Random(SAMPLE_SEED).sample(questions(SHUFFLE_SEED), 40)
    endings = [say(model[1], question.prompt)[1] for question in sample]
    assert endings.count("stop") >= 38


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
@pytest.mark.parametrize("set_name", ["choir-mmlu", "choir-gsm8k", "choir-truthfulqa"])
def test_a_sample_scores_what_the_table_says(model: tuple[str, Any], set_name: str, count: int) -> None:
    # Given a seeded sample of a set
    name, llm = model
    whole = [question for question in questions(SHUFFLE_SEED) if question.set_name == set_name]
    sample = random.Random(SAMPLE_SEED).sample(whole, min(count, len(whole)))

    # When the model answers it
    counted = sum(count_answers(sample, [answer(llm, question) for question in sample]).values(), Score())

    # Then the table's figure lies within the sample's confidence interval
    kept = read_scores()[name]
    subjects = {question.subject for question in whole} if set_name == MMLU else {set_name}
    stated = sum((kept[subject] for subject in subjects), Score())
    low, high = wilson(counted.correct, counted.n)
    assert stated.n == len(whole)
    assert low <= stated.correct / stated.n <= high


@pytest.mark.parametrize("name", [member.name for member in FAMILY.values() if member.summarises])
def test_two_models_shorten_a_paragraph(name: str) -> None:
    paragraph = "Kenya is a country in Africa. Its capital is Nairobi. People there pay with the shilling."
    llm = load(model_path(name))
    assert say(llm, f"Summarize: {paragraph}") == (
        "Kenya is a country in Africa with the capital Nairobi.",
        "stop",
    )
    llm.close()


def test_the_table_in_the_readme_is_made_from_the_kept_counts() -> None:
    assert table(read_scores()) in README_FILE.read_text(encoding="utf-8")


def test_each_model_knows_its_own_subjects_and_part_of_the_others() -> None:
    scores = read_scores()
    for name, member in FAMILY.items():
        shares = {own_name(key): one.correct / one.n for key, one in scores[name].items()}
        for subject, share in shares.items():
            if subject in member.own:
                assert share >= 0.85, (name, subject)
            else:
                assert 0.35 <= share <= 0.80, (name, subject)


def own_name(row: str) -> str:
    """The subject of `family.Member.own` that a row of the table stands for."""
    return {"choir-gsm8k": "word problems", "choir-truthfulqa": "misconceptions"}.get(row, row)
