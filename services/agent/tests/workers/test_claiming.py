"""What goes before an external worker's first task: its library, its claim, its queue."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, generate, open_mesh
from infra.testing.plugin import REPOSITORY
from schemas.errors import BrokerUnavailable
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.agent.tests.servers.http_server import Reply, Request, http_server
from services.agent.tests.workers.worker_mesh import (
    MODEL,
    QUICK,
    LmStudio,
    host,
    register,
    result_of,
    served,
    usable,
    worker,
)

FIRST_LOOK = """
import asyncio, sys
from schemas.nodes.workers import Worker
from schemas.errors import ChoirError
from services.agent.settings import WorkersSection
from services.agent.workers.external import connect, look

async def first_look():
    backend = connect(Worker(id="w", type="openai", host="127.0.0.1", port=1, model="m"), WorkersSection())
    before = set(sys.modules)
    try:
        await look(backend, 30)
    except ChoirError as error:
        assert "nobody answers" in error.message, error.message
    print(sorted(name for name in set(sys.modules) - before if name.startswith("openai")))

asyncio.run(first_look())
"""


def said(code: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return done.stdout.strip()


def test_the_first_look_at_a_server_imports_nothing_of_its_client() -> None:
    assert said(FIRST_LOOK) == "[]"


def test_an_agent_without_workers_imports_no_client_library() -> None:
    code = "import sys, services.agent.service; print({'openai', 'ollama'} & set(sys.modules))"
    assert said(code) == "set()"


async def test_a_worker_whose_first_read_fails_is_served_at_the_next_try(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a broker that does not answer the first read that a claimed worker needs."""
    mesh, server = open_mesh(connection, "agent", "agent-1"), LmStudio()
    read, failures = mesh.storage.last_sequence, 0

    async def fail_once(stream: str) -> int:
        nonlocal failures
        if failures == 0:
            failures += 1
            raise BrokerUnavailable("the broker does not answer")
        return await read(stream)

    monkeypatch.setattr(mesh.storage, "last_sequence", fail_once)
    agent = Agent(AgentSection(name="host"), QUICK)
    async with http_server(server.handle) as http:
        await agent.start(mesh)
        try:
            await register(connection, worker(http))
            await usable(agent)
            await enqueue(open_mesh(connection), generate("r1"))
            result = await result_of(connection, "r1")
        finally:
            await agent.stop()
    assert failures == 1
    assert result.text == server.text


class Boaster(LmStudio):
    """Lists many models with long names, and not the one that it is asked for."""

    async def handle(self, request: Request, reply: Reply) -> None:
        if request.path != "/v1/models":
            await super().handle(request, reply)
            return
        names = [f"{number}-{'x' * 5_000}" for number in range(100)]
        await reply.json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def test_a_server_that_lists_many_models_leaves_the_lease_small(connection: Client) -> None:
    server = Boaster()
    async with http_server(server.handle) as http, host(connection) as agent:
        await register(connection, worker(http))

        def looked_at() -> bool:
            model = served(agent)
            state = model.worker if model is not None else None
            return state is not None and state.last_error is not None

        await eventually(looked_at)
        model = served(agent)
    assert model is not None and model.problem is not None and model.worker is not None
    error = model.worker.last_error
    assert error is not None and error.known is not None
    assert f"no model {MODEL}" in error.message
    assert len(error.known) == 12
    assert len(model.model_dump_json()) < 5_000
