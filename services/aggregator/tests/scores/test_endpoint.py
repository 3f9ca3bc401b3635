"""`choir.scores`: what the mesh has learnt can be seen, kept and forgotten."""

from __future__ import annotations

import json
from typing import Any

from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, gather
from schemas import subjects
from schemas.replies import ErrorReply, ScoresReply
from services.aggregator.tests.ensemble import aggregating, members, result_of

SAID = {"alpha": "A", "beta": "A", "gamma": "B"}


async def scores(client: Client, **request: Any) -> bytes:
    reply = await client.request(
        subjects.SCORES, json.dumps(request).encode() if request else b"", timeout=60
    )
    return reply.data


async def read(client: Client, **request: Any) -> ScoresReply:
    return ScoresReply.model_validate_json(await scores(client, **request))


async def learn_something(client: Client, mesh: Any) -> None:
    """Asks a closed question about a capital and says what was right."""
    question = gather("r1", tuple(SAID), choices=("Paris", "London"), topic="capitals")
    await enqueue(mesh, question)
    await result_of(mesh, "r1")
    await client.request(subjects.FEEDBACK, b'{"request_id": "r1", "correct": "A"}', timeout=60)

    async def learnt() -> bool:
        return bool((await read(client)).agreement)

    await eventually(learnt)


async def test_accuracy_by_topic_and_agreement_are_told(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, SAID):
        await learn_something(connection, mesh)
        found = await read(connection)
    assert [(score.agent, score.topic, score.correct, score.asked) for score in found.accuracy] == [
        (agent, topic, right, 1)
        for topic in (None, "capitals")
        for agent, right in (("alpha", 1), ("beta", 1), ("gamma", 0))
    ]
    assert [(pair.one, pair.other, pair.options, pair.agreed, pair.both) for pair in found.agreement] == [
        ("alpha", "beta", 2, 1, 1),
        ("alpha", "gamma", 2, 0, 1),
        ("beta", "gamma", 2, 0, 1),
    ]
    assert [(score.agent, score.with_isp) for score in found.unlabelled] == [
        ("alpha", 1),
        ("beta", 1),
        ("gamma", 0),
    ]
    assert not found.reset


async def test_a_reset_tells_what_was_known_for_the_last_time(connection: Client) -> None:
    async with aggregating(connection) as mesh, aggregating(connection), members(connection, SAID):
        await learn_something(connection, mesh)
        before = await read(connection, reset=True)

        async def forgotten() -> bool:
            after = await read(connection)
            return not (after.accuracy or after.agreement or after.unlabelled)

        await eventually(forgotten)
    assert before.reset and before.accuracy and before.agreement


async def test_a_request_of_another_shape_is_refused_with_the_field(connection: Client) -> None:
    async with aggregating(connection):
        error = ErrorReply.model_validate_json(await scores(connection, reset="perhaps")).error
    assert (error.code, error.field) == ("invalid_request", "reset")
