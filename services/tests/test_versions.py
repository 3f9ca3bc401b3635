"""Services of different versions in one mesh: what a newer one says is read, what it asks is not buried."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.errors import UnsupportedVersion
from schemas.golden.samples import LEASE
from schemas.replies import Result
from services.chassis.tests.mesh import bodies, generate
from services.client.client import Choir

READY_S = 60.0
AGENT = {"name": "singer", "backend": "instant", "models": [{"name": "alpha", "reply": "the giraffe"}]}
NEWS: dict[str, Any] = {"mood": "merry"}


def with_news(message: dict[str, Any]) -> bytes:
    """A message as a newer service would write it, with something new within it too."""
    nested = {
        name: {**value, **NEWS} if isinstance(value, dict) and name == "timings" else value
        for name, value in message.items()
    }
    return json.dumps({**nested, **NEWS}).encode()


async def test_a_mesh_lives_with_services_that_are_newer(
    connection: Client, mesh_url: str, spawn_service: SpawnService
) -> None:
    services = [spawn_service("router"), spawn_service("agent", agent=AGENT)]
    for service in services:
        await service.wait_ready(connection, READY_S)
    js = connection.jetstream()
    async with Choir(mesh_url) as mesh:
        # What a newer agent says of itself is seen
        leases = await js.key_value(subjects.NODES_BUCKET)
        newer = LEASE.model_copy(update={"instance": "newer", "models": ()})
        await leases.put(subjects.node_key("agent", "newer"), with_news(newer.model_dump(mode="json")))
        async with asyncio.timeout(30):
            while "newer" not in {node.instance for node in await mesh.nodes()}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        # A result that it stored is handed out
        result = Result(
            request_id="r1", fingerprint="", topology="single", text="so", accepted_at_s=1, completed_at_s=2
        )
        await js.publish(subjects.result("r1"), with_news(result.model_dump(mode="json", exclude_none=True)))
        assert (await mesh.fetch("r1")).text == "so"
        # One that cannot be read says which service is too old
        await js.publish(subjects.result("r2"), json.dumps({"schema_version": 2}).encode())
        with pytest.raises(UnsupportedVersion, match="upgrade the router"):
            await mesh.fetch("r2")
        # And a command that nobody here can read ends at its deadline, not in the grave
        command = generate("r3", timeout_s=8).model_dump(mode="json", exclude_none=True)
        subject = subjects.generate("interactive", "alpha", "r3")
        await js.publish(subject, json.dumps(command | NEWS).encode())
        with pytest.raises(UnsupportedVersion, match="the field mood"):
            await mesh.fetch("r3", wait_s=60)
    assert await bodies(connection, subjects.DEAD_STREAM) == []
