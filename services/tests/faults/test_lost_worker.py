"""The only worker of a model dies with a request in hand: the client is told that, and not to wait longer."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.replies import ModelsReply, Result
from services.agent.tests.servers.http_server import http_server
from services.agent.tests.workers.worker_mesh import LmStudio, register, worker

pytestmark = pytest.mark.long

TIMEOUT_S = 8.0


@pytest.mark.soak
async def test_a_request_whose_worker_died_ends_with_what_the_worker_died_of(
    connection: Client, spawn_service: SpawnService
) -> None:
    server = LmStudio()

    async def can_be_asked() -> bool:
        reply = await connection.request(subjects.MODELS, b"{}", timeout=60)
        return any(model.slots for model in ModelsReply.model_validate_json(reply.data).models)

    services = [spawn_service("router", "router-1"), spawn_service("agent", "host", agent={"name": "host"})]
    for service in services:
        await service.wait_ready(connection, deadline_s=180)
    async with http_server(server.handle) as http:
        await register(connection, worker(http))
        await eventually(can_be_asked, deadline_s=180)
        server.mood = "hang"
        server.began.clear()
        ask = {"prompt": "How tall is a giraffe?", "model": "alpha", "timeout_s": TIMEOUT_S}
        asked = asyncio.create_task(
            connection.request(subjects.ASK, json.dumps(ask).encode(), timeout=TIMEOUT_S + 60)
        )
        await server.began.wait()
    error = Result.model_validate_json((await asked).data).error
    assert error is not None and error.code == "worker_failed", error
    assert "mac-1" in error.message
