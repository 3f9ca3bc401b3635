"""How answers are read, and how counts become a table."""

from __future__ import annotations

import pytest

from infra.training.score import Score, cell, read_choice, read_number, wilson, with_table

CITIES = ("Rome", "Paris", "The Hague", "New Delhi")


@pytest.mark.parametrize(
    "text,choice",
    [
        ("Paris", "Paris"),
        ("paris.", "Paris"),
        ("B. Paris", "Paris"),
        ("(C)", "The Hague"),
        ("D", "New Delhi"),
        ("hague", "The Hague"),
        ("Berlin", None),
        ("", None),
        ("Because", None),
    ],
)
def test_a_choice_is_read_from_its_text_or_its_letter(text: str, choice: str | None) -> None:
    assert read_choice(text, CITIES) == choice


def test_an_option_that_is_itself_a_letter_is_read_as_text() -> None:
    assert read_choice("B", ("C", "K", "B", "Ba")) == "B"


@pytest.mark.parametrize(
    "text,number",
    [("7 + 5 = 12\n#### 12", "12"), ("12", "12"), ("It is 3 of 4.", "4"), ("#### -2", "-2"), ("none", None)],
)
def test_a_number_is_read_after_the_marks_or_last(text: str, number: str | None) -> None:
    assert read_number(text) == number


def test_the_wilson_interval_is_the_known_one() -> None:
    assert list(wilson(8, 10)) == pytest.approx([0.490, 0.943], abs=5e-4)
    assert wilson(0, 10)[0] == pytest.approx(0.0, abs=1e-9)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_a_cell_says_percent_and_interval_and_marks_the_own_subject() -> None:
    assert cell(Score(10, 8), own=False) == "80 % [49, 94]"
    assert cell(Score(10, 8), own=True) == "**80 % [49, 94]**"


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    subjects = ["capitals", "currencies", "arithmetic", "units", "elements", "astronomy", "animals", "words"]
    scores = {key: Score(4, 3) for key in (*subjects, "choir-gsm8k", "choir-truthfulqa")}
    text = "before\n<!-- scores: begin -->\nold\n<!-- scores: end -->\nafter\n"

    made = with_table(text, {"choir-llama": scores})

    assert made.startswith("before\n<!-- scores: begin -->\n| questions |")
    assert made.endswith("\n<!-- scores: end -->\nafter\n")
    assert "old" not in made
    assert "| choir-mmlu, all subjects | 32 | 75 % " in made
