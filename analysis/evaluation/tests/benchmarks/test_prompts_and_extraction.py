"""What a model is asked, word for word, and how its text is read."""

from __future__ import annotations

import pytest

from analysis.evaluation.asking.prompts import template
from analysis.evaluation.benchmarks.question import Question, closed, question_id
from analysis.evaluation.scoring.extraction import extraction
from schemas.errors import InvalidRequest

SUM = closed(0, "What is 2+2? {options}", ("3", "4"), 1, "abstract_algebra")
EXAMPLE = closed(1, "What is 1+1?", ("2", "3"), 0, "abstract_algebra")
PROBLEM = Question(
    id=question_id(0, "How many?"), topic="word problems", text="How many?", kind="number", right="18"
)


def test_the_prompt_of_mmlu_is_its_authors() -> None:
    assert template("mmlu").prompt(SUM, [EXAMPLE]) == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        "What is 1+1?\nA. 2\nB. 3\nAnswer: A\n\n"
        "What is 2+2? {options}\nA. 3\nB. 4\nAnswer:"
    )


def test_a_template_of_ones_own_needs_the_question_in_it() -> None:
    assert template("Q: {question} ({subject})").prompt(PROBLEM) == "Q: How many? (word problems)"
    with pytest.raises(InvalidRequest, match="none of bare, options, mmlu"):
        template("no question here")


@pytest.mark.parametrize(
    ("way", "text", "read"),
    [
        ("strict", "B", "B"),
        ("strict", " (b). ", "B"),
        ("strict", "Answer: A", "A"),
        ("strict", "The answer is B", None),
        ("strict", "C", None),
        ("flexible", "The answer is B", "B"),
        ("flexible", "4", "B"),
        ("flexible", "b) 4", "B"),
        ("flexible", "I do not know", None),
        ("flexible", "", None),
    ],
)
def test_letters_are_read(way: str, text: str, read: str | None) -> None:
    assert extraction(way, "choice")(text, SUM.choices) == read


@pytest.mark.parametrize(
    ("way", "text", "read"),
    [
        ("strict", "9 + 9 = 18\n#### 18", "18"),
        ("strict", "18", None),
        ("flexible", "18 dollars a day for 7 days", "7"),
        ("flexible", "It is $1,000.", "1000"),
        ("flexible", "none", None),
        ("numeric", "The answer is 18 dollars a day for 7 days", "18"),
        ("numeric", "#### 18.00", "18"),
        ("numeric", "none", None),
    ],
)
def test_numbers_are_read(way: str, text: str, read: str | None) -> None:
    assert extraction(way, "number")(text, ()) == read


def test_a_way_that_a_kind_cannot_be_read_in_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="a choice cannot be read as 'numeric'; there are strict"):
        extraction("numeric", "choice")
