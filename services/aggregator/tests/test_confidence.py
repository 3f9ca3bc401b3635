"""An ensemble that is less sure than it has to be says nothing but what its members said."""

from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, events, eventually, gather
from schemas.events import DecisionMade, RequestCompleted
from services.aggregator.decide import confidence_of
from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.tests.ensemble import aggregating, members, result_of

FOUR = ("alpha", "beta", "gamma", "delta")
CLOSED: dict[str, Any] = {"choices": ("cat", "dog", "cow", "hen")}


def test_it_is_the_posterior_of_independent_agents() -> None:
    """x = .9 and .6, K = 4: odds .9 to .1/3 and .6 to .4/3 for what both say; beside one another they tell
    which of them is right."""
    known = {"a": AgentHistory(correct=896, asked=996), "b": AgentHistory(correct=599, asked=996)}
    context = StrategyContext("r", 4, "pets", known, known)
    alike = confidence_of("A", [Ballot("a", "A", "A"), Ballot("b", "A", "A")], context)
    apart = confidence_of("A", [Ballot("a", "A", "A"), Ballot("b", "B", "B")], context)
    for found, (one, other) in ((alike, (0.6, 0.1 / 3 * 0.4 / 3 * 3)), (apart, (0.4 / 3, 0))):
        wrong = other or 0.1 / 3 * 0.6 + 2 * (0.1 / 3 * 0.4 / 3)
        assert found == pytest.approx(0.9 * one / (0.9 * one + wrong), abs=0.01)
    assert confidence_of(None, [], context) == 0.0


async def test_what_is_not_sure_enough_is_undecided_with_all_answers(connection: Client) -> None:
    said = dict(zip(FOUR, "AABC", strict=True))
    async with aggregating(connection) as mesh, members(connection, said):
        for number, least in enumerate((0.0, 0.95)):
            await enqueue(mesh, gather(f"r{number}", FOUR, min_confidence=least, **CLOSED))
        told, undecided = await result_of(mesh, "r0"), await result_of(mesh, "r1")

        async def all_told() -> tuple[list[Any], dict[str | None, float | None]] | None:
            seen = await events(connection)
            failed = [event for event in seen if isinstance(event, RequestCompleted) and event.error]
            sure = {event.request_id: event.confidence for event in seen if isinstance(event, DecisionMade)}
            return (failed, sure) if failed and "r0" in sure else None

        (completed,), sure = await eventually(all_told)
    assert told.text == "A" and told.error is None
    assert undecided.text is None and undecided.error is not None
    assert (undecided.error.code, undecided.error.field) == ("undecided", "min_confidence")
    assert [answer.text for answer in undecided.answers] == list("AABC")
    assert undecided.decisions[0].answer == "A"
    assert undecided.decisions[0].confidence == told.decisions[0].confidence == sure["r0"]
    assert completed.error is not None and completed.error.code == "undecided"


async def test_a_cascade_that_is_settled_asks_on_while_there_is_too_much_doubt(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(FOUR, "B")) as asked:
        fields: dict[str, Any] = {"effort": "exact", "lots": "j", "min_confidence": 0.98, **CLOSED}
        await enqueue(mesh, gather("r1", FOUR, **fields))
        result = await result_of(mesh, "r1")
    assert len(asked["delta"].asked) == 1 and result.error is None
    assert result.cascade is not None and result.cascade.ended == "all"
