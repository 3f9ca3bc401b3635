"""Histories survive, are the same everywhere, and lose nothing when many write at once."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.mesh import eventually
from infra.testing.plugin import connect
from schemas import subjects
from services.aggregator.decide import Question
from services.aggregator.scores.agreement import Agreement
from services.aggregator.scores.history import AgentHistory
from services.aggregator.scores.ledger import FeedbackLedger
from services.aggregator.scores.score_codec import FeedbackUpdate
from services.aggregator.scores.store import Scores
from services.aggregator.strategies import Ballot


async def open_scores(client: Client) -> Scores:
    scores = Scores(client)
    await scores.start()
    return scores


async def test_what_an_agent_did_is_counted(connection: Client) -> None:
    scores = await open_scores(connection)
    for right in (True, True, False):
        await scores.record("llama3.2:3b", right)
    expected = {"llama3.2:3b": AgentHistory(correct=2, asked=3)}
    await eventually(lambda: scores.history.agents == expected)


async def test_another_aggregator_knows_the_same_at_once_and_after_a_restart(
    connection: Client, mesh_url: str
) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    await one.record("alpha", True)
    expected = {"alpha": AgentHistory(correct=1, asked=1)}
    await eventually(lambda: other.history.agents == expected)
    late = await open_scores(other_connection)
    assert late.history.agents == expected
    await other_connection.close()


async def test_nothing_is_lost_when_many_count_at_the_same_moment(connection: Client, mesh_url: str) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    await asyncio.gather(
        *(scores.record("alpha", right) for scores in (one, other) for right in (True, True, False))
    )
    expected = {"alpha": AgentHistory(correct=4, asked=6)}
    await eventually(lambda: one.history.agents == expected and other.history.agents == expected)
    await other_connection.close()


async def test_the_feedback_on_a_request_is_counted_once_whoever_counts_it(
    connection: Client, mesh_url: str
) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    ledgers = [FeedbackLedger(connection, one), FeedbackLedger(other_connection, other)]
    for ledger in ledgers:
        await ledger.start()
    update = FeedbackUpdate(request_id="r1", right=("alpha",), wrong=("beta",))
    counted = await asyncio.gather(*(ledger.count(update) for ledger in ledgers for _ in range(4)))
    assert sum(counted) == 1
    await eventually(lambda: one.history.agents.keys() == {"alpha", "beta"})
    assert {history.asked for history in one.history.agents.values()} == {1}
    for ledger in ledgers:
        await ledger.stop()
    await other_connection.close()


async def test_a_history_that_nobody_can_read_is_passed_over(connection: Client) -> None:
    bucket = await connection.jetstream().key_value(subjects.SCORES_BUCKET)
    await bucket.put(subjects.score_key("alpha"), b'{"correct": 7, "asked": 3}')
    await bucket.put(subjects.score_key("beta"), b'{"correct": 1, "asked": 3}')
    scores = await open_scores(connection)
    assert scores.history.agents == {"beta": AgentHistory(correct=1, asked=3)}


async def test_a_history_that_is_deleted_is_forgotten(connection: Client) -> None:
    scores = await open_scores(connection)
    await scores.record("alpha", True)
    await eventually(lambda: "alpha" in scores.history.agents)
    bucket = await connection.jetstream().key_value(subjects.SCORES_BUCKET)
    await bucket.delete(subjects.score_key("alpha"))
    await eventually(lambda: scores.history.agents == {})
    await scores.record("alpha", False)
    await eventually(lambda: scores.history.agents == {"alpha": AgentHistory(correct=0, asked=1)})


async def test_what_an_agent_did_on_a_topic_is_counted_beside(connection: Client) -> None:
    scores = await open_scores(connection)
    await scores.record("llama3.2:3b", True, "world history")
    await scores.record("llama3.2:3b", False)
    on_topic = {"world history": {"llama3.2:3b": AgentHistory(correct=1, asked=1)}}
    await eventually(lambda: scores.history.topics == on_topic)
    await eventually(lambda: scores.history.agents == {"llama3.2:3b": AgentHistory(correct=1, asked=2)})


async def test_nothing_is_lost_when_two_aggregators_learn_from_answers_at_once(
    connection: Client, mesh_url: str
) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    for i in range(40):
        for scores in (one, other):
            scores.learn([Ballot("x", "", "A"), Ballot("y", "", "AB"[i % 2])], Question(str(i), 4))
            if i % 10 == 0:
                await asyncio.gather(one.write(), other.write())
    await asyncio.gather(one.stop(), other.stop())
    late = await open_scores(other_connection)
    assert late.history.closed[4].agreement == {frozenset("xy"): Agreement(agreed=40, both=80)}
    assert late.history.closed[4].isp["x"].asked == 80
    assert sum(late.history.closed[4].confusions["y"]) == pytest.approx(80, abs=0.1)
    await late.stop()
    await other_connection.close()


async def test_what_was_learnt_is_known_to_others_without_being_asked_for(
    connection: Client, mesh_url: str
) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    one.learn([Ballot("x", "", "A"), Ballot("y", "", "A")], Question("q", 2))
    await eventually(lambda: 2 in other.history.closed)
    await asyncio.gather(one.stop(), other.stop())
    await other_connection.close()


def knows_nothing(scores: Scores) -> bool:
    known = scores.history
    return not (known.agents or known.closed or any(known.topics.values()))


async def test_after_a_reset_everybody_knows_nothing_and_learns_anew(
    connection: Client, mesh_url: str
) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    await one.record("alpha", True, "capitals")
    one.learn([Ballot("x", "", "A"), Ballot("y", "", "A")], Question("q", 2))
    await one.write()
    await eventually(lambda: 2 in other.history.closed)
    await other.reset()
    await eventually(lambda: knows_nothing(one) and knows_nothing(other))
    await one.record("alpha", False, "capitals")
    await eventually(lambda: other.history.agents == {"alpha": AgentHistory(correct=0, asked=1)})
    await asyncio.gather(one.stop(), other.stop())
    await other_connection.close()


async def test_scores_are_started_before_they_are_used(connection: Client) -> None:
    with pytest.raises(RuntimeError, match="first"):
        await Scores(connection).record("alpha", True)


async def test_what_was_forgotten_while_an_aggregator_was_cut_off_is_forgotten_there_too(
    connection: Client, mesh_url: str
) -> None:
    one = await open_scores(connection)
    async with mesh_on_a_cable(mesh_url, "aggregator") as (mesh, way):
        other = await open_scores(mesh.client)
        mesh.connection.on_reconnect(other.reload)
        await one.record("alpha", True, "geography")
        await eventually(lambda: other.history.agents and other.history.topics)
        await way.cut_from(mesh)
        await one.reset()
        await one.record("beta", True)
        await way.mend()
        await eventually(
            lambda: (
                other.history.agents == {"beta": AgentHistory(correct=1, asked=1)}
                and not other.history.topics.get("geography")
            )
        )
        await other.stop()
    await one.stop()
