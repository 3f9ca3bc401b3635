"""From answers to decisions: every strategy sees the same ballots."""

from __future__ import annotations

import pytest

from schemas.errors import GenerationFailed, UnknownStrategy
from services.aggregator.decide import ballots, decide
from services.aggregator.history import AgentHistory
from services.aggregator.tests.ensemble import answer
from services.chassis.tests.mesh import gather

MEMBERS = ("alpha", "beta", "gamma")


def test_ballots_stand_in_the_order_of_the_members_whoever_was_first() -> None:
    given = {agent: answer("r1", agent, "A") for agent in reversed(MEMBERS)}
    assert [ballot.agent for ballot in ballots(gather("r1", MEMBERS), given)] == list(MEMBERS)


def test_errors_and_missing_members_cast_no_ballot_and_what_cannot_be_read_abstains() -> None:
    given = {
        "alpha": answer("r1", "alpha", GenerationFailed("no")),
        "gamma": answer("r1", "gamma", "I would rather not say"),
    }
    (ballot,) = ballots(gather("r1", MEMBERS, answer_kind="number"), given)
    assert (ballot.agent, ballot.answer) == ("gamma", None)


def test_answers_are_read_as_the_request_says() -> None:
    given = {"alpha": answer("r1", "alpha", "The answer is (B).")}
    (as_choice,) = ballots(gather("r1", MEMBERS, choices=("cat", "dog")), given)
    (as_text,) = ballots(gather("r1", MEMBERS, answer_kind="text"), given)
    assert as_choice.answer == "B"
    assert as_text.answer != "B"


def test_both_strategies_decide_from_one_set_of_ballots_and_may_differ() -> None:
    question = gather(
        "r1", MEMBERS, strategies=("weighted", "majority"), choices=("cat", "dog", "cow", "fox")
    )
    given = {agent: answer("r1", agent, text) for agent, text in zip(MEMBERS, "ABB", strict=True)}
    histories = {
        "alpha": AgentHistory(correct=900, asked=1000),
        "beta": AgentHistory(correct=300, asked=1000),
        "gamma": AgentHistory(correct=300, asked=1000),
    }
    weighted, majority = decide(question, ballots(question, given), histories)
    assert (weighted.strategy, weighted.answer) == ("weighted", "A")
    assert (majority.strategy, majority.answer) == ("majority", "B")
    assert [vote.answer for vote in weighted.votes] == [vote.answer for vote in majority.votes]


def test_the_same_question_falls_alike_under_any_request_id() -> None:
    given = {agent: answer("r1", agent, text) for agent, text in zip(MEMBERS, "ABC", strict=True)}
    winners = set()
    for request_id in ("r1", "r2", "r3", "r4", "r5", "r6"):
        question = gather(request_id, MEMBERS, choices=("cat", "dog", "cow"))
        (decision,) = decide(question, ballots(question, given), {})
        assert decision.tie
        winners.add(decision.answer)
    assert len(winners) == 1


def test_a_strategy_that_is_not_in_the_table_is_an_error() -> None:
    with pytest.raises(UnknownStrategy):
        decide(gather("r1", MEMBERS, strategies=("dice",)), [], {})
