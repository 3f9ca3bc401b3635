"""What is learnt is counted once, whatever happens between a write and the word that it is stored.

The broker is real; what is made up is the moment at which its word is lost, or the aggregator dies.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.broker.lost_words import LostWords
from infra.testing.mesh import events, eventually, open_mesh
from infra.testing.plugin import connect
from schemas import subjects
from schemas.errors import Overloaded
from schemas.events import FeedbackReceived
from schemas.replies import FeedbackCounted
from services.aggregator.decide import Question
from services.aggregator.scores.agreement import Agreement
from services.aggregator.scores.history import AgentHistory
from services.aggregator.scores.store import MAX_TOPICS, Scores
from services.aggregator.service import Aggregator
from services.aggregator.settings import AggregatorSection
from services.aggregator.strategies import Ballot
from services.aggregator.tests.ensemble import aggregating, store_result
from services.aggregator.tests.scores.test_feedback import histories
from services.aggregator.tests.scores.test_store import open_scores

QUESTION, BALLOTS = Question("q", 4), [Ballot("x", "", "A"), Ballot("y", "", "A")]
RIGHT, WRONG = AgentHistory(correct=1, asked=1), AgentHistory(correct=0, asked=1)
SAID = {"alpha": "Paris", "beta": "Paris", "gamma": "London"}


async def test_a_right_answer_counts_once_though_the_word_of_it_was_lost(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = await open_scores(connection)
    words = LostWords(monkeypatch, ".agent.", 2)
    await scores.record("alpha", True)
    await scores.record("alpha", False)
    assert words.lost == 2
    assert await histories(connection) == {"alpha": AgentHistory(correct=1, asked=2)}


async def test_an_update_counts_once_though_the_word_of_it_was_lost(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = await open_scores(connection)
    words = LostWords(monkeypatch, ".closed.", 1)
    scores.learn(BALLOTS, QUESTION)
    await scores.write()
    await scores.stop()
    assert words.lost == 1
    late = await open_scores(connection)
    assert late.history.closed[4].agreement == {frozenset("xy"): Agreement(agreed=1, both=1)}
    await late.stop()


async def test_an_aggregator_that_stops_in_the_middle_of_a_write_has_written_once(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = await open_scores(connection)
    words = LostWords(monkeypatch, ".closed.", 1, for_ever=True)
    scores.learn(BALLOTS, QUESTION)
    await words.stored.wait()
    scores.learn(BALLOTS, QUESTION)
    await scores.stop()
    late = await open_scores(connection)
    assert late.history.closed[4].agreement == {frozenset("xy"): Agreement(agreed=2, both=2)}
    await late.stop()


async def teach(client: Client, request_id: str = "r1", **more: str) -> FeedbackCounted:
    body = json.dumps({"request_id": request_id, "correct": "Paris", **more}).encode()
    return FeedbackCounted.model_validate_json(
        (await client.request(subjects.FEEDBACK, body, timeout=60)).data
    )


async def dead_in_the_middle(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> asyncio.Task[FeedbackCounted]:
    """An aggregator that takes feedback on `r1` and dies when the broker has stored what is under `key`."""
    own = await connect(url)
    mesh = open_mesh(own, "aggregator")
    await Aggregator(AggregatorSection()).start(mesh)
    await store_result(mesh, "r1", SAID)
    words = LostWords(monkeypatch, key, 1, for_ever=True)
    asked = asyncio.create_task(teach(client))
    await words.stored.wait()
    await own.close()
    return asked


EVERYTHING = {"alpha": RIGHT, "beta": RIGHT, "gamma": WRONG}


@pytest.mark.parametrize("key", [".pending.", ".agent.alpha", ".agent.gamma", ".choir_feedback.r1"])
async def test_a_feedback_whose_aggregator_dies_in_the_middle_is_counted_once_by_the_next_one(
    key: str, connection: Client, mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await dead_in_the_middle(connection, mesh_url, monkeypatch, key)
    async with aggregating(connection):
        again = await teach(connection)
        assert (again.right, again.wrong) == (("alpha", "beta"), ("gamma",))
        assert (await teach(connection)).already_counted
        assert await histories(connection) == EVERYTHING
    asked.cancel()


async def test_a_feedback_that_nobody_sends_again_is_counted_by_whoever_is_there(
    connection: Client, mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.aggregator.scores.ledger.SWEEP_INTERVAL_S", 0.1)
    asked = await dead_in_the_middle(connection, mesh_url, monkeypatch, ".agent.alpha")
    async with aggregating(connection):

        async def told() -> list[str | None]:
            return [
                event.request_id for event in await events(connection) if isinstance(event, FeedbackReceived)
            ]

        assert await eventually(told) == ["r1"]
        assert await histories(connection) == EVERYTHING
        assert (await teach(connection)).already_counted
        assert await histories(connection) == EVERYTHING
    asked.cancel()


async def test_what_is_counted_leaves_nothing_pending(connection: Client) -> None:
    async with aggregating(connection) as mesh:
        await store_result(mesh, "r1", SAID)
        await teach(connection)
        bucket = await connection.jetstream().key_value(subjects.FEEDBACK_BUCKET)

        async def keys() -> bool:
            stream = subjects.bucket_stream(subjects.FEEDBACK_BUCKET)
            info = await connection.jetstream().stream_info(stream, subjects_filter=">")
            return set(info.state.subjects or ()) == {f"$KV.{subjects.FEEDBACK_BUCKET}.r1"}

        await eventually(keys)
        assert (await bucket.get("r1")).value


def is_known(scores: Scores, topic: str) -> bool:
    return topic in scores.history.topics


async def test_topics_of_clients_do_not_grow_without_end_and_the_used_ones_stay(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.aggregator.scores.store.MAX_TOPICS", 5)
    scores = await open_scores(connection)
    for _ in range(3):
        await scores.record("alpha", True, "history")
    for number in range(20):
        await scores.record("alpha", True, f"made up {number}")
        await eventually(partial(is_known, scores, f"made up {number}"))
    await eventually(lambda: len(scores.history.topics) == 5)
    assert scores.history.topics["history"] == {"alpha": AgentHistory(correct=3, asked=3)}
    assert "made up 19" in scores.history.topics
    late = await open_scores(connection)
    assert late.history.topics == scores.history.topics
    assert MAX_TOPICS > 100


async def test_a_full_bucket_is_told_to_the_client_and_in_the_lease(own_broker: Broker) -> None:
    client = await connect(own_broker.url)
    js, stream = client.jetstream(), subjects.bucket_stream(subjects.SCORES_BUCKET)
    scores = await open_scores(client)
    config = (await js.stream_info(stream)).config
    await js.update_stream(config, max_bytes=1)
    with pytest.raises(Overloaded, match="full"):
        await scores.record("alpha", True)
    scores.learn(BALLOTS, QUESTION)
    await eventually(lambda: scores.problem is not None and "full" in scores.problem.message)
    await js.update_stream(config, max_bytes=10**6)
    await eventually(lambda: 4 in scores.history.closed)
    await eventually(lambda: scores.problem is None)
    await scores.stop()
    await client.close()
