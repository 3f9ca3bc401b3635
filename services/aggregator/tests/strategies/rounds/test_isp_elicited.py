"""The surprisingly popular vote: more votes than were predicted."""

from __future__ import annotations

import pytest

from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.rounds.isp_elicited import (
    NO_SURPRISE,
    SHARES,
    UNANIMOUS,
    WITHOUT_PREDICTIONS,
    isp_elicited,
)
from services.aggregator.strategies.votes.majority import majority

CONTEXT = StrategyContext(seed="r", options=2)


def cast(*votes: tuple[str | None, str | None]) -> list[Ballot]:
    """Ballots as (answer, prediction)."""
    return [Ballot(f"agent-{i}", "", answer, predicted=said) for i, (answer, said) in enumerate(votes)]


def test_a_minority_that_is_larger_than_everybody_expects_is_right() -> None:
    """Is Philadelphia the capital of Pennsylvania? Most say yes (A); who knows says no, and expects a yes."""
    ballots = cast(*[("A", "A")] * 13, *[("B", "A")] * 7)

    decision = isp_elicited(ballots, CONTEXT)

    assert majority(ballots, CONTEXT).answer == "A"
    assert decision.answer == "B"
    assert decision.scores == pytest.approx({"A": 13 - 20, "B": 7})
    assert decision.share == pytest.approx(7 / 20)
    assert decision.margin == pytest.approx(14 / 20)


def test_predictions_are_shares_of_those_that_could_be_read() -> None:
    decision = isp_elicited(cast(("A", "A"), ("A", None), ("B", "A"), (None, "A"), (None, "B")), CONTEXT)
    assert decision.scores == pytest.approx({"A": 2 - 3 * 3 / 4, "B": 1 - 3 * 1 / 4})
    assert decision.abstained == ("agent-3", "agent-4")


def test_where_predictions_tell_nothing_the_majority_decides_and_that_is_said() -> None:
    decision = isp_elicited(cast(("A", "A"), ("A", "A"), ("B", "B")), CONTEXT)
    assert (decision.answer, decision.note, decision.tie) == ("A", NO_SURPRISE, False)
    torn = isp_elicited(cast(("A", "A"), ("B", "B")), CONTEXT)
    assert torn.tie is True


def test_an_answer_that_was_only_predicted_cannot_win() -> None:
    decision = isp_elicited(cast(("A", "C"), ("A", "C"), ("B", "C")), CONTEXT)
    assert set(decision.scores) == {"A", "B"}


@pytest.mark.parametrize("predicted", ["A", "B", None])
def test_where_all_agree_the_share_is_that_of_the_votes_whatever_was_predicted(predicted: str | None) -> None:
    decision = isp_elicited(cast(("A", predicted), ("A", "A"), ("A", "B"), (None, "A")), CONTEXT)
    assert (decision.answer, decision.share, decision.margin) == ("A", 1.0, 1.0)
    assert decision.note == UNANIMOUS


def test_shares_that_are_not_of_votes_are_called_that() -> None:
    assert isp_elicited(cast(("A", "A"), ("A", "A"), ("B", "A")), CONTEXT).note == SHARES


def test_without_predictions_the_majority_decides_and_that_is_said() -> None:
    decision = isp_elicited(cast(("A", None), ("B", None), ("B", None)), CONTEXT)
    assert (decision.answer, decision.note) == ("B", WITHOUT_PREDICTIONS)
