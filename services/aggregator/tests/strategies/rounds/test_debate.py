"""Debate: the last answer of each counts, and what was done without one is said."""

from __future__ import annotations

import pytest

from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.rounds.debate import (
    NO_ANSWER,
    NO_SECOND_ROUND,
    ONE_ANSWER,
    UNANIMOUS,
    debate,
    unanimous,
)

FIRST = [Ballot("x", "18 x", "18"), Ballot("y", "17 y", "17"), Ballot("z", "18 z", "18")]


def test_the_majority_of_the_second_round_decides() -> None:
    second = [Ballot("z", "17 now", "17"), Ballot("x", "17 now", "17"), Ballot("y", "17 still", "17")]
    decision = debate(FIRST, StrategyContext(seed="r", second_round=second))
    assert (decision.answer, decision.text, decision.share, decision.note) == ("17", "17 now", 1.0, None)
    assert [vote.agent for vote in decision.votes] == ["x", "y", "z"]


def test_who_gives_no_second_answer_is_still_of_its_first_opinion() -> None:
    decision = debate(FIRST, StrategyContext(seed="r", second_round=[Ballot("x", "17", "17")]))
    assert decision.answer == "17"
    assert decision.note == "no second answer of y, z: the first one counts"


def test_a_second_answer_that_cannot_be_read_does_not_take_back_the_first() -> None:
    second = [Ballot("x", "hm", None), Ballot("y", "18 now", "18"), Ballot("z", "18", "18")]
    decision = debate(FIRST, StrategyContext(seed="r", second_round=second))
    assert (decision.answer, decision.share, decision.abstained) == ("18", 1.0, ())
    assert decision.note == "no second answer of x: the first one counts"


@pytest.mark.parametrize("second", [None, [], [Ballot("x", "hm", None)]])
def test_without_a_second_round_the_first_decides_and_that_is_said(second: list[Ballot] | None) -> None:
    decision = debate(FIRST, StrategyContext(seed="r", second_round=second))
    assert (decision.answer, decision.note) == ("18", NO_SECOND_ROUND)


def test_a_unanimous_first_round_needs_no_second() -> None:
    agreed = [Ballot("x", "", "18"), Ballot("y", "?", None), Ballot("z", "", "18")]
    assert unanimous(agreed)
    assert debate(agreed, StrategyContext(seed="r")).note == UNANIMOUS
    assert not unanimous(FIRST)
    assert unanimous([])


@pytest.mark.parametrize(
    ("answers", "note"), [((None, None, None), NO_ANSWER), (("18", None, None), ONE_ANSWER)]
)
def test_where_too_few_could_be_read_nobody_is_called_unanimous(
    answers: tuple[str | None, ...], note: str
) -> None:
    ballots = [Ballot(agent, "?", answer) for agent, answer in zip("xyz", answers, strict=True)]
    decision = debate(ballots, StrategyContext(seed="r"))
    assert (decision.answer, decision.note) == (answers[0], note)
