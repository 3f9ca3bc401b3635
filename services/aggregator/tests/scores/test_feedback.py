"""A client says what was right: the weights learn from it, once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.broker.broker_reads import BrokerReads
from infra.testing.mesh import enqueue, events, eventually, gather, generate
from schemas import subjects
from schemas.commands import ChatMessage
from schemas.errors import ChoirError, GenerationFailed
from schemas.events import FeedbackReceived
from schemas.replies import ErrorReply, FeedbackCounted
from services.aggregator.scores.history import AgentHistory
from services.aggregator.scores.store import Scores
from services.aggregator.tests.ensemble import aggregating, members, result_of, store_result

SAID: dict[str, str | ChoirError] = {
    "alpha": "Paris.",
    "beta": "paris",
    "gamma": "London",
    "delta": GenerationFailed("no"),
}


async def teach(client: Client, **feedback: Any) -> bytes:
    reply = await client.request(subjects.FEEDBACK, json.dumps(feedback).encode(), timeout=60)
    return reply.data


async def histories(client: Client) -> dict[str, AgentHistory]:
    scores = Scores(client)
    await scores.start()
    return scores.history.agents


async def test_who_was_right_and_who_was_wrong_is_counted(connection: Client) -> None:
    async with aggregating(connection) as mesh:
        await store_result(mesh, "r1", SAID)
        counted = FeedbackCounted.model_validate_json(
            await teach(connection, request_id="r1", correct="Paris")
        )

        async def told() -> list[FeedbackReceived]:
            return [event for event in await events(connection) if isinstance(event, FeedbackReceived)]

        (event,) = await eventually(told)
    assert (counted.right, counted.wrong, counted.already_counted) == (("alpha", "beta"), ("gamma",), False)
    assert (event.request_id, event.right, event.wrong) == ("r1", ("alpha", "beta"), ("gamma",))
    right, wrong = AgentHistory(correct=1, asked=1), AgentHistory(correct=0, asked=1)
    assert await histories(connection) == {"alpha": right, "beta": right, "gamma": wrong}


async def test_who_knows_only_what_is_wrong_counts_against_those_who_said_it(connection: Client) -> None:
    async with aggregating(connection) as mesh:
        await store_result(mesh, "r1", SAID)
        counted = FeedbackCounted.model_validate_json(await teach(connection, request_id="r1", wrong="PARIS"))
        both = await teach(connection, request_id="r1", wrong="Paris", correct="Lyon")
    assert (counted.right, counted.wrong) == ((), ("alpha", "beta"))
    assert ErrorReply.model_validate_json(both).error.field == "correct"
    wrong = AgentHistory(correct=0, asked=1)
    assert await histories(connection) == {"alpha": wrong, "beta": wrong}


async def test_the_texts_of_a_chain_are_not_counted(connection: Client) -> None:
    async with aggregating(connection) as mesh:
        await store_result(mesh, "r1", SAID, topology="chain")
        refused = ErrorReply.model_validate_json(await teach(connection, request_id="r1", correct="Paris"))
    assert (refused.error.code, refused.error.field) == ("invalid_request", "request_id")
    assert await histories(connection) == {}


async def test_it_counts_on_the_topic_that_the_result_or_the_client_says(connection: Client) -> None:
    said = {"alpha": "Paris", "beta": "Rome"}
    async with aggregating(connection) as mesh, members(connection, said):
        question = ChatMessage(role="user", content="What is the capital of France?")
        for number, topic in enumerate((None, "geography", None)):
            await enqueue(mesh, gather(f"r{number}", tuple(said), topic=topic, messages=(question,)))
        topics = [(await result_of(mesh, f"r{number}")).topic for number in range(3)]
        for number, more in enumerate(({}, {}, {"topic": "trivia"})):
            await teach(connection, request_id=f"r{number}", correct="Paris", **more)
    scores = Scores(connection)
    await scores.start()
    await scores.stop()
    assert topics == ["capitals", "geography", "capitals"]
    assert {topic: known["alpha"].asked for topic, known in scores.history.topics.items()} == {
        "capitals": 1,
        "geography": 1,
        "trivia": 1,
    }
    assert scores.history.agents["beta"] == AgentHistory(correct=0, asked=3)


async def test_the_same_feedback_many_times_changes_the_weights_once(connection: Client) -> None:
    async with aggregating(connection) as mesh, aggregating(connection):
        await store_result(mesh, "r1", SAID)
        replies = await asyncio.gather(
            *(teach(connection, request_id="r1", correct="Paris") for _ in range(8))
        )
    counted = [FeedbackCounted.model_validate_json(reply) for reply in replies]
    assert sorted(reply.already_counted for reply in counted) == [False] + [True] * 7
    assert {history.asked for history in (await histories(connection)).values()} == {1}


async def test_what_a_client_taught_decides_the_next_question(connection: Client) -> None:
    """Two that are often wrong outvote one that is right, until the mesh has learnt who is right."""
    said = {"alpha": "Paris", "beta": "London", "gamma": "London"}
    names = tuple(said)
    async with aggregating(connection) as mesh, members(connection, said):
        for i in range(6):
            await enqueue(mesh, gather(f"r{i}", names, strategies=("weighted",)))
            result = await result_of(mesh, f"r{i}")
            if i == 0:
                assert result.decisions[0].answer == "london"
            await teach(connection, request_id=f"r{i}", correct="Paris")
        await eventually(lambda: _asked(connection, "alpha", 6))
        await enqueue(mesh, gather("last", names, strategies=("majority", "weighted")))
        majority, weighted = (await result_of(mesh, "last")).decisions
    assert (majority.answer, weighted.answer) == ("london", "paris")


async def _asked(client: Client, agent: str, count: int) -> bool:
    return (await histories(client)).get(agent, AgentHistory()).asked == count


async def test_feedback_on_what_nobody_asked_is_refused(connection: Client) -> None:
    async with aggregating(connection):
        error = ErrorReply.model_validate_json(await teach(connection, request_id="never", correct="x")).error
    assert (error.code, error.field) == ("unknown_request", "request_id")


async def test_a_tenant_gives_feedback_on_its_own_requests_alone(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, SAID):
        await enqueue(mesh, gather("alice=r1", tuple(SAID)))
        await result_of(mesh, "alice=r1")
        said = json.dumps({"request_id": "r1", "correct": "Paris"}).encode()
        for tenant in ("bob", subjects.LOCAL_TENANT):
            refused = await connection.request(subjects.door(tenant, subjects.FEEDBACK), said, timeout=60)
            assert ErrorReply.model_validate_json(refused.data).error.code == "unknown_request"
        counted = await connection.request(subjects.door("alice", subjects.FEEDBACK), said, timeout=60)
    reply = FeedbackCounted.model_validate_json(counted.data)
    assert (reply.request_id, reply.right) == ("r1", ("alpha", "beta"))


async def test_an_id_of_another_takes_the_same_reads_as_one_that_does_not_exist(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aggregating(connection) as mesh:
        await store_result(mesh, "alice=finished", SAID)
        await enqueue(mesh, generate("alice=queued"))
        reads = BrokerReads(monkeypatch)
        for said in ({"correct": "Paris"}, {"wrong": "Rome", "topic": "capitals"}):
            nothing, queued, finished = [
                await reads.way_of(connection, subjects.door("bob", subjects.FEEDBACK), one, **said)
                for one in ("nothing", "queued", "finished")
            ]
            assert nothing[0] and b"unknown_request" in nothing[1]
            assert nothing == queued == finished
    assert await histories(connection) == {}


async def test_what_cannot_be_read_as_an_answer_is_refused_and_counts_nothing(connection: Client) -> None:
    async with aggregating(connection) as mesh:
        await store_result(mesh, "r1", SAID)
        unreadable = ErrorReply.model_validate_json(
            await teach(connection, request_id="r1", correct=" ?! ")
        ).error
        missing = ErrorReply.model_validate_json(await teach(connection, request_id="r1")).error
        long_topic = await teach(connection, request_id="r1", correct="Paris", topic="x" * 65)
        too_long = ErrorReply.model_validate_json(long_topic).error
        counted = FeedbackCounted.model_validate_json(
            await teach(connection, request_id="r1", correct="Paris")
        )
    assert (too_long.code, too_long.field) == ("invalid_request", "topic")
    assert (unreadable.code, unreadable.field) == ("invalid_request", "correct")
    assert (missing.code, missing.field) == ("invalid_request", "correct")
    assert not counted.already_counted
