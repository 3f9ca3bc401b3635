"""Agreement of agents: counted without knowing what was right, and shrunk towards chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.aggregator.scores.agreement import NEVER_MET, Agreement, agreements
from services.aggregator.scores.score_codec import unlabelled_from_bytes


def test_agreement_counts_the_questions_that_both_answered() -> None:
    counted = agreements(
        [
            {"x": "A", "y": "A", "z": "B"},
            {"x": "A", "y": "B", "z": None},
            {"x": None, "y": None, "z": "C"},
        ]
    )

    assert counted == {
        frozenset("xy"): Agreement(agreed=1, both=2),
        frozenset("xz"): Agreement(agreed=0, both=1),
        frozenset("yz"): Agreement(agreed=0, both=1),
    }


@pytest.mark.parametrize(("options", "agreed", "beyond"), [(4, 10**7, 1), (4, 10**7 // 4, 0), (2, 0, -1)])
def test_agreement_beyond_chance_is_one_always_and_nothing_at_chance(
    options: int, agreed: int, beyond: float
) -> None:
    agreement = Agreement(agreed=agreed, both=10**7)
    assert agreement.beyond_chance(options) == pytest.approx(beyond, abs=1e-5)


def test_one_meeting_says_little_and_none_says_nothing() -> None:
    assert NEVER_MET.beyond_chance(4) == 0.0
    assert Agreement(agreed=1, both=1).beyond_chance(4) == pytest.approx(1 / 5)


def test_more_agreements_than_meetings_are_refused_where_they_are_read() -> None:
    pair = '{"one":"x","other":"y","options":4,"agreed":2,"both":1}'
    with pytest.raises(ValidationError, match="agreed is greater than both"):
        unlabelled_from_bytes(f'{{"agreement":[{pair}]}}'.encode())
    agent = '{"agent":"x","options":4,"with_isp":2,"asked":1}'
    with pytest.raises(ValidationError, match="with_isp is greater than asked"):
        unlabelled_from_bytes(f'{{"agents":[{agent}]}}'.encode())


@given(st.integers(2, 26), st.integers(0, 100), st.integers(0, 100))
def test_agreement_beyond_chance_is_never_more_than_one(options: int, same: int, different: int) -> None:
    beyond = Agreement(agreed=same, both=same + different).beyond_chance(options)
    assert -1 / (options - 1) - 1e-12 <= beyond <= 1
