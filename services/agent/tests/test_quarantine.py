"""A command that ends the process of whoever works on it does not end all agents."""

from __future__ import annotations

import json
import sys
from functools import partial

from nats.aio.client import Client

from infra.testing.mesh import bodies, enqueue, eventually, generate, open_mesh, queue_is_empty
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.commands import ChatMessage
from schemas.nodes.lease import NodeLease
from services.agent.tests.workers.worker_mesh import result_of
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.work.tests.test_loop import impatient_model

FRAGILE_AGENT = """
import os, signal
from services.agent.backends.instant import Instant
whole = Instant.generate
async def generate(self, messages, sampling, on_piece, origin):
    if messages[0].content == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return await whole(self, messages, sampling, on_piece, origin)
Instant.generate = generate
import runpy
runpy.run_module("services.agent", run_name="__main__")
"""
"""An agent whose model ends its process, as a library that aborts would."""

NAMES = ("one", "two", "three", "four", "five")


async def test_a_command_that_kills_its_agents_is_kept_from_the_others(
    connection: Client, spawn_service: SpawnService
) -> None:
    """What was in work beside it is done by somebody else."""
    await impatient_model(connection, "epsilon")
    section = {"backend": "instant", "models": [{"name": "epsilon", "slots": 4, "delay_ms": 50}]}
    agents = [
        spawn_service(
            "agent",
            name,
            env={"CHOIR_AGENT": json.dumps({"name": name, **section})},
            command=[sys.executable, "-c", FRAGILE_AGENT],
        )
        for name in NAMES
    ]
    for agent in agents:
        await agent.wait_ready(connection, deadline_s=180)
    mesh = open_mesh(connection)
    deadly = generate("deadly", "epsilon", messages=(ChatMessage(role="user", content="deadly"),))
    await enqueue(mesh, deadly)
    for number in range(20):
        await enqueue(mesh, generate(f"r{number}", "epsilon"))
    await eventually(lambda: queue_is_empty(connection), deadline_s=180)
    error = (await result_of(connection, "deadly")).error
    assert error is not None and error.code == "poison_message"
    assert "3 processes have died" in error.message
    assert sum(not agent.alive for agent in agents) == 3
    assert await bodies(connection, subjects.DEAD_STREAM) == [deadly.to_bytes()]
    for number in range(20):
        assert (await result_of(connection, f"r{number}")).error is None


async def test_a_command_that_was_alone_with_two_agents_which_somebody_killed_is_answered(
    connection: Client, spawn_service: SpawnService
) -> None:
    """Whoever is killed from outside ends as one whom the command kills. With one slot each command is alone:
    after two such deaths an innocent one would be buried."""
    await impatient_model(connection, "epsilon")
    mesh = open_mesh(connection)
    await enqueue(mesh, generate("innocent", "epsilon", timeout_s=600))
    model = {"name": "epsilon", "slots": 1, "reply": "at last"}
    for name, delay_ms in (("one", 600_000), ("two", 600_000), ("three", 0)):
        section = {"name": name, "backend": "instant", "models": [{**model, "delay_ms": delay_ms}]}
        agent = spawn_service("agent", name, agent=section)
        if delay_ms:
            await eventually(partial(is_at_work, connection, name), deadline_s=180)
            agent.kill()
    await eventually(lambda: queue_is_empty(connection), deadline_s=180)
    result = await result_of(connection, "innocent")
    assert (result.text, result.error) == ("at last", None)
    assert await bodies(connection, subjects.DEAD_STREAM) == []


async def is_at_work(client: Client, name: str) -> bool:
    """Whether an agent says in its lease that it has a command in work."""
    lease = await Bucket(client, subjects.NODES_BUCKET, messages(NodeLease)).get(
        subjects.node_key("agent", name)
    )
    return lease.value is not None and lease.value.busy == 1
