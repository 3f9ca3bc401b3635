"""An agent with a cordon around it, or around its host, finishes what it has and takes nothing new."""

from __future__ import annotations

import socket

import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, generate, open_mesh, queue_is_empty, queued
from schemas import subjects
from schemas.nodes.cordons import Cordon
from services.agent.tests.test_agent import instant, result_of, serving

MINE, HOSTS = subjects.instance_cordon_key("agent-1"), subjects.host_cordon_key(socket.gethostname())


@pytest.mark.parametrize("key", [MINE, HOSTS])
async def test_a_cordoned_agent_finishes_what_it_has_and_goes_on_when_it_is_let_in(
    key: str, connection: Client
) -> None:
    mesh = open_mesh(connection)
    bucket = await connection.jetstream().key_value(subjects.CORDONS_BUCKET)
    pulled = await connection.subscribe(subjects.event("agent", "task_pulled"))
    async with serving(connection, instant(delay_ms=300, slots=2)) as agent:
        await bucket.put(
            subjects.instance_cordon_key("agent-2"), Cordon(instance="agent-2", at_s=0).to_bytes()
        )
        await enqueue(mesh, generate("r1"))
        await pulled.next_msg(60)
        await bucket.put(key, b"one of a newer version")
        await eventually(lambda: agent.load().rests)
        await enqueue(mesh, generate("r2"))
        await eventually(lambda: result_of(mesh, "r1"))

        async def only_one_waits() -> bool:
            return await queued(connection) == 1

        await eventually(only_one_waits)
        assert agent.load().busy == 0 and await result_of(mesh, "r2") is None
        await bucket.delete(key)
        await eventually(lambda: queue_is_empty(connection))
        assert not agent.load().rests and await result_of(mesh, "r2") is not None


async def test_an_agent_that_is_started_within_a_cordon_takes_nothing(connection: Client) -> None:
    mesh = open_mesh(connection)
    bucket = await connection.jetstream().key_value(subjects.CORDONS_BUCKET)
    await bucket.put(MINE, Cordon(instance="agent-1", drain=True, at_s=0).to_bytes())
    await enqueue(mesh, generate("r1"))
    async with serving(connection, instant()) as agent:
        assert agent.load().rests and await queued(connection) == 1
        async with serving(connection, instant(), "agent-2"):
            await eventually(lambda: queue_is_empty(connection))
        result = await result_of(mesh, "r1")
        assert result is not None and result.answers[0].instance == "agent-2"
