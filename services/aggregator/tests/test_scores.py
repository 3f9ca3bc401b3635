"""Histories survive, are the same everywhere, and lose nothing when many write at once."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from infra.testing import connect
from schemas import subjects
from services.aggregator.history import AgentHistory
from services.aggregator.scores import Scores
from services.chassis.tests.mesh import eventually


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


async def test_a_request_can_be_claimed_once(connection: Client, mesh_url: str) -> None:
    other_connection = await connect(mesh_url)
    one, other = await open_scores(connection), await open_scores(other_connection)
    claims = await asyncio.gather(*(scores.claim("r1") for scores in (one, other) for _ in range(4)))
    assert sum(claims) == 1
    assert await one.claim("r2")
    assert one.history.agents == {}  # a claim is no agent
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


async def test_scores_are_started_before_they_are_used(connection: Client) -> None:
    with pytest.raises(RuntimeError, match="start"):
        await Scores(connection).claim("r1")
