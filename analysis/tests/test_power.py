"""Sample sizes: the worked value, that they do what they promise, and what cannot be asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.statistics.power import observed_discordance, questions_needed, smallest_detectable_difference
from analysis.statistics.significance import mcnemar_of_counts
from schemas.errors import InvalidRequest


def test_five_points_at_a_discordance_of_a_fifth_need_621_questions() -> None:
    assert questions_needed(0.05, 0.2) == 621


def test_so_many_questions_show_the_difference_four_times_in_five() -> None:
    n, found, runs = 621, 0, 1500
    draw = np.random.default_rng(11)
    for only_one, only_other, _ in draw.multinomial(n, [0.125, 0.075, 0.8], size=runs):
        found += mcnemar_of_counts(int(only_one), int(only_other), n=n).p < 0.05
    assert 0.75 <= found / runs <= 0.83


@given(st.integers(1, 10**5), st.floats(0.01, 1), st.floats(0.001, 0.2), st.floats(0.5, 0.99))
def test_the_smallest_difference_is_the_one_that_needs_so_many_questions(
    n: int, discordance: float, alpha: float, power: float
) -> None:
    smallest = smallest_detectable_difference(n, discordance, alpha=alpha, power=power)
    assume(smallest <= discordance)
    assert abs(questions_needed(smallest, discordance, alpha=alpha, power=power) - n) <= 1


@given(st.integers(1, 10**5), st.floats(0.01, 1))
def test_more_questions_show_smaller_differences(n: int, discordance: float) -> None:
    few, many = (smallest_detectable_difference(k, discordance) for k in (n, n + 1))
    assert 0 < many < few < 1


def test_with_too_few_questions_the_smallest_difference_is_one_that_cannot_be() -> None:
    assert smallest_detectable_difference(10, 0.2) > 0.2


def test_the_sign_of_a_difference_does_not_matter() -> None:
    assert questions_needed(-0.05, 0.2) == questions_needed(0.05, 0.2)


def test_discordance_is_the_share_of_questions_on_which_they_differ() -> None:
    assert observed_discordance([1, 1, 0, 0, 1], [1, 0, 0, 1, 1]) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("difference", "discordance", "field"),
    [
        (0.0, 0.2, "difference"),
        (0.3, 0.2, "difference"),
        (math.nan, 0.2, "difference"),
        (0.05, 0.0, "discordance"),
        (0.05, 1.5, "discordance"),
    ],
)
def test_what_cannot_be_is_refused(difference: float, discordance: float, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        questions_needed(difference, discordance)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("n", "alpha", "power", "field"), [(0, 0.05, 0.8, "n"), (9, 0, 0.8, "alpha"), (9, 0.05, 1, "power")]
)
def test_the_smallest_difference_refuses_what_cannot_be(
    n: int, alpha: float, power: float, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        smallest_detectable_difference(n, 0.2, alpha=alpha, power=power)
    assert refused.value.field == field
