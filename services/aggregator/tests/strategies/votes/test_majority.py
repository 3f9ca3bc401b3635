"""Majority vote and the counting of votes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ensembles.strategies import STRATEGIES
from schemas.errors import UnknownStrategy
from schemas.replies import Decision
from services.aggregator import strategies
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.votes.majority import majority

CONTEXT = StrategyContext(seed="request-1")

answers = st.lists(st.one_of(st.none(), st.sampled_from(["17", "18", "19"])), max_size=9)


def ballots(*answers: str | None) -> list[Ballot]:
    return [Ballot(f"agent-{i}", f"It is {answer}.", answer) for i, answer in enumerate(answers)]


def test_the_most_frequent_answer_wins_and_who_is_unreadable_abstains() -> None:
    decision = majority(ballots("18", "18", "17", None), CONTEXT)

    assert decision.strategy == "majority"
    assert decision.answer == "18"
    assert decision.share == pytest.approx(2 / 3)
    assert decision.margin == pytest.approx(1 / 3)
    assert decision.tie is False
    assert decision.scores == {"18": 2.0, "17": 1.0}
    assert decision.abstained == ("agent-3",)
    assert [(vote.agent, vote.answer, vote.weight) for vote in decision.votes] == [
        ("agent-0", "18", 1.0),
        ("agent-1", "18", 1.0),
        ("agent-2", "17", 1.0),
        ("agent-3", None, 0.0),
    ]


def test_the_text_is_that_of_the_first_agent_with_the_winning_answer() -> None:
    decision = majority(
        [Ballot("a", "17?", "17"), Ballot("b", "It is 18.", "18"), Ballot("c", "18", "18")], CONTEXT
    )
    assert decision.text == "It is 18."


def test_a_unanimous_answer_has_the_whole_share_and_margin() -> None:
    decision = majority(ballots("18", "18"), CONTEXT)
    assert (decision.share, decision.margin, decision.tie) == (1.0, 1.0, False)


@pytest.mark.parametrize("abstaining", [[], ballots(None, None)])
def test_without_any_readable_answer_nothing_is_decided(abstaining: list[Ballot]) -> None:
    decision = majority(abstaining, CONTEXT)

    assert (decision.answer, decision.text, decision.share, decision.margin) == (None, None, 0.0, 0.0)
    assert decision.scores == {}
    assert decision.abstained == tuple(ballot.agent for ballot in abstaining)


def test_a_tie_is_said_and_has_no_margin() -> None:
    decision = majority(ballots("18", "17", "18", "17", "16"), CONTEXT)

    assert decision.tie is True
    assert decision.answer in ("17", "18")
    assert decision.share == pytest.approx(2 / 5)
    assert decision.margin == 0.0


def test_a_tie_falls_to_each_side_under_some_seed() -> None:
    winners = {majority(ballots("17", "18"), StrategyContext(seed=str(seed))).answer for seed in range(20)}
    assert winners == {"17", "18"}


@given(answers, st.randoms())
def test_the_order_of_ballots_does_not_change_who_wins(
    given_answers: list[str | None], random: object
) -> None:
    cast = ballots(*given_answers)
    shuffled = list(cast)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    one, other = majority(cast, CONTEXT), majority(shuffled, CONTEXT)

    assert one.answer == other.answer
    assert (one.share, one.margin, one.tie, one.scores) == (
        other.share,
        other.margin,
        other.tie,
        other.scores,
    )


@given(answers)
def test_a_decision_adds_up(given_answers: list[str | None]) -> None:
    decision = majority(ballots(*given_answers), CONTEXT)

    assert sum(decision.scores.values()) == sum(vote.weight for vote in decision.votes)
    assert 0 <= decision.margin <= decision.share <= 1
    assert len(decision.votes) == len(given_answers)
    told = decision.decision()
    assert told == Decision.read(told.to_bytes())


def test_a_strategy_is_found_by_its_name_and_signs_its_decision() -> None:
    assert tuple(strategies.TABLE) == STRATEGIES, (
        "the names at the door and the table of functions must agree"
    )
    for name in tuple(strategies.TABLE):
        assert strategies.get(name)(ballots("18"), CONTEXT).strategy == name


def test_an_unknown_strategy_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownStrategy, match="majority, weighted") as refused:
        strategies.get("oracle")
    assert refused.value.known == tuple(strategies.TABLE)
    assert refused.value.field == "strategies"
