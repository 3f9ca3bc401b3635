"""How probable each option was, from the tokens that came and those that could have."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.reading.option_probabilities import option_probabilities
from services.aggregator.tests.ensemble import answer

CITIES = ("Paris", "Berlin", "Bern", "Oslo")


def place(text: str, **others: float) -> dict[str, Any]:
    """A token that came with the rest of the probability, and others that could have."""
    own = 1 - math.fsum(others.values())
    ranked = [{"text": token, "logprob": math.log(p)} for token, p in ({text: own} | others).items()]
    return {"token_id": 1, "text": text, "logprob": math.log(own), "top": tuple(ranked)}


def probabilities(text: str, *places: dict[str, Any], choices: tuple[str, ...] = CITIES) -> dict[str, float]:
    return option_probabilities(answer("r", "x", text).model_copy(update={"logprobs": places}), choices)


def test_letters_have_the_probabilities_of_their_tokens() -> None:
    found = probabilities("B", place("B", A=0.2, C=0.1))
    assert found == pytest.approx({"A": 0.2, "B": 0.7, "C": 0.1, "D": 0.0})


def test_what_is_no_option_does_not_count_and_blanks_do_not_matter() -> None:
    found = probabilities(" B", place(" B", **{" A": 0.2, "A": 0.1, "The": 0.3}))
    assert found == pytest.approx({"A": 3 / 7, "B": 4 / 7, "C": 0.0, "D": 0.0})


def test_after_reasoning_the_last_place_of_the_letter_counts() -> None:
    places = (
        place("A", B=0.01),
        place(" is"),
        place(" wrong"),
        place(" Answer"),
        place(":"),
        place(" B", **{" A": 0.25}),
    )
    found = probabilities("A is wrong. Answer: B", *places)
    assert found == pytest.approx({"A": 0.25, "B": 0.75, "C": 0.0, "D": 0.0})


def test_options_named_by_their_text_share_a_beginning_until_they_part() -> None:
    """`Ber` is two cities: what could have followed tells them apart."""
    found = probabilities("Berlin", place("Ber", Par=0.2, Os=0.1), place("lin", n=0.25))
    assert found == pytest.approx({"A": 0.2, "B": 0.7 * 0.75, "C": 0.7 * 0.25, "D": 0.1})


def test_a_token_that_leaves_options_open_where_the_answer_went_elsewhere_counts_for_each() -> None:
    found = probabilities("Paris", place("Par", Ber=0.4), place("is"))
    assert found == pytest.approx({"A": 0.6, "B": 0.2, "C": 0.2, "D": 0.0})


@pytest.mark.parametrize(
    ("text", "places", "choices"),
    [
        ("B", (), CITIES),
        ("I would rather not say", (place("I"),), CITIES),
        ("B", (place("B"),), ()),
    ],
)
def test_without_logprobs_options_or_an_answer_there_are_none(
    text: str, places: tuple[dict[str, Any], ...], choices: tuple[str, ...]
) -> None:
    assert probabilities(text, *places, choices=choices) == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["A", " B", "Ber", "lin", "x", "", " the"]), st.floats(-20, 0)), max_size=6
    )
)
def test_whatever_a_backend_reports_they_are_probabilities_or_none(tokens: list[tuple[str, float]]) -> None:
    places = tuple({"text": text, "logprob": logprob, "top": ()} for text, logprob in tokens)
    found = probabilities("".join(text for text, _ in tokens), *places)
    assert found == {} or math.fsum(found.values()) == pytest.approx(1)
