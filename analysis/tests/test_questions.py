"""Folding: repetitions belong to their question, and two sides of a comparison to the same questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.questions import align, fold
from analysis.statistics.significance import paired_t
from schemas.errors import InvalidRequest

samples = st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 1)), min_size=1, max_size=30)


def test_repetitions_are_folded_into_their_question_in_whatever_order_they_come() -> None:
    questions = fold([("q1", 1.0), ("q2", 0.0), ("q1", 0.0), ("q2", 0.0), ("q1", 1.0)])

    assert questions.ids == ("q1", "q2")
    assert (questions.n, questions.n_samples) == (2, 5)
    assert questions.repetitions == (3, 2)
    assert questions.means().tolist() == pytest.approx([2 / 3, 0])


def test_asking_the_same_five_questions_five_times_proves_nothing_more() -> None:
    """A published comparison counted every repetition as a question: t = 2.449, p = .022."""
    one = fold((f"q{q}", float(q == 0)) for q in range(5) for _ in range(5))
    other = fold((f"q{q}", 0.0) for q in range(5) for _ in range(5))

    by_sample = paired_t(one.samples, other.samples)
    by_question = paired_t(one.means(), align(one, other).means())

    assert (by_sample.statistic, by_sample.p) == pytest.approx((2.449, 0.022), abs=5e-4)
    assert (by_question.statistic, by_question.p) == pytest.approx((1.0, 0.374), abs=5e-4)
    assert by_question.n == 5


def test_questions_are_paired_by_their_ids_not_by_their_order() -> None:
    one = fold([("q1", 1.0), ("q2", 0.0), ("q3", 0.5)])
    other = fold([("q3", 0.5), ("q1", 1.0), ("q1", 0.0), ("q2", 0.0)])

    aligned = align(one, other)

    assert aligned.ids == one.ids
    assert aligned.means().tolist() == [0.5, 0.0, 0.5]
    assert aligned.repetitions == (2, 1, 1)


def test_questions_on_one_side_only_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="1 questions stand on one side only, 'q2'") as refused:
        align(fold([("q1", 1.0), ("q2", 0.0)]), fold([("q1", 1.0)]))
    assert refused.value.field == "other"


@pytest.mark.parametrize("bad", [[], [("q1", float("nan"))], [("q1", float("inf"))]])
def test_no_samples_and_scores_that_are_no_numbers_are_refused(bad: list[tuple[str, float]]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fold(bad)
    assert refused.value.field == "samples"


@given(samples)
def test_folding_keeps_every_sample(given_samples: list[tuple[str, float]]) -> None:
    questions = fold(given_samples)

    assert sum(questions.repetitions) == questions.n_samples == len(given_samples)
    assert sorted(questions.samples.tolist()) == sorted(score for _, score in given_samples)
    assert float(questions.sums_of(questions.samples).sum()) == pytest.approx(
        sum(score for _, score in given_samples)
    )
