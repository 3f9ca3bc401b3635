"""Sample sizes: the worked value, that they do what they promise, and what cannot be asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.statistics.power import questions_needed, smallest_detectable_difference, squared_difference
from analysis.statistics.resampling import sign_flip_columns
from analysis.statistics.significance import mcnemar_of_counts
from schemas.errors import InvalidRequest


def test_five_points_at_a_discordance_of_a_fifth_need_626_questions() -> None:
    """By Connor's formula with tabled quantiles; one variance for both hypotheses would say 621."""
    by_hand = (1.959964 * math.sqrt(0.2) + 0.841621 * math.sqrt(0.2 - 0.0025)) ** 2 / 0.0025
    assert questions_needed(0.05, 0.2) == math.ceil(by_hand) == 626


def test_so_many_questions_show_the_difference_four_times_in_five() -> None:
    n, found, runs = 626, 0, 1500
    draw = np.random.default_rng(11)
    for only_one, only_other, _ in draw.multinomial(n, [0.125, 0.075, 0.8], size=runs):
        found += mcnemar_of_counts(int(only_one), int(only_other), n=n).p < 0.05
    assert 0.75 <= found / runs <= 0.83


@given(st.integers(1, 10**5), st.floats(0.01, 1), st.floats(0.001, 0.2), st.floats(0.5, 0.99))
def test_the_smallest_difference_is_the_one_that_needs_so_many_questions(
    n: int, discordance: float, alpha: float, power: float
) -> None:
    smallest = smallest_detectable_difference(n, discordance, alpha=alpha, power=power)
    assume(smallest**2 <= discordance)
    assert abs(questions_needed(smallest, discordance, alpha=alpha, power=power) - n) <= 1


@given(st.integers(1, 10**5), st.floats(0.01, 1))
def test_more_questions_show_smaller_differences(n: int, discordance: float) -> None:
    few, many = (smallest_detectable_difference(k, discordance) for k in (n, n + 1))
    assert 0 < many < few


def test_with_too_few_questions_the_smallest_difference_is_one_that_cannot_be() -> None:
    assert smallest_detectable_difference(3, 0.2) > math.sqrt(0.2)


def test_the_sign_of_a_difference_does_not_matter() -> None:
    assert questions_needed(-0.05, 0.2) == questions_needed(0.05, 0.2)


def test_of_right_and_wrong_the_squared_difference_is_the_share_of_questions_on_which_they_differ() -> None:
    assert squared_difference([1, 1, 0, 0, 1], [1, 0, 0, 1, 1]) == pytest.approx(0.4)


def test_repetitions_that_disagree_differ_less_and_questions_of_one_cluster_more() -> None:
    one, other = [0.5, 0.5, 0, 0], [0, 0, 0, 0.5]
    assert squared_difference(one, other) == pytest.approx(3 * 0.25 / 4)
    assert squared_difference(one, other, "aabb") == pytest.approx((1.0 + 0.25) / 4)


def test_a_family_of_comparisons_sees_only_greater_differences() -> None:
    """63 pairs on 379 questions with a discordance of 3 %: about half as much again as one pair."""
    alone, in_family = (smallest_detectable_difference(379, 0.03, alpha=0.05 / m) for m in (1, 63))
    assert 1.4 < in_family / alone < 1.6


def test_means_of_repetitions_show_a_difference_of_that_size_four_times_in_five() -> None:
    """By simulation, with the test that the comparison uses: 200 questions, each asked twice."""
    draw = np.random.default_rng(5)
    n, runs = 200, 120
    shape = np.array([-1, -0.5, 0, 0.5, 1])
    chances = np.array([0.02, 0.06, 0.7, 0.14, 0.08])
    v, d = float(chances @ shape**2), float(chances @ shape)
    needed = questions_needed(d, v)
    differences = draw.choice(shape, p=chances, size=(needed, runs))
    found = (sign_flip_columns(differences, seed=1, permutations=999) < 0.05).mean()
    assert needed < n and 0.7 <= found <= 0.9


@pytest.mark.parametrize(
    ("difference", "discordance", "field"),
    [
        (0.0, 0.2, "difference"),
        (0.5, 0.2, "difference"),
        (math.nan, 0.2, "difference"),
        (0.05, 0.0, "squared"),
        (0.05, math.inf, "squared"),
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
