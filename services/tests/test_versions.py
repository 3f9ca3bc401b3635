"""Services of different versions in one mesh: what a newer one says is read, what it asks is not buried."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.plugin import REPOSITORY, SpawnService
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


@pytest.fixture
def newer(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """How a service of the next version is started: all of its messages have one more field, and it reads
    those that have it and those that have not."""
    folder = tmp_path / "newer"
    shutil.copytree(
        REPOSITORY / "schemas", folder / "schemas", ignore=shutil.ignore_patterns("tests", "__pycache__")
    )
    message = folder / "schemas" / "message.py"
    text = message.read_text()
    field = "    schema_version: Literal[1] = Field(default=1)\n"
    assert text.count(field) == 1
    message.write_text(text.replace(field, f'{field}    news: str = "of the next version"\n'))

    def started(service: str) -> dict[str, Any]:
        # -P: the `schemas` in the working directory is this version's.
        command = [sys.executable, "-P", "-m", f"services.{service}"]
        return {"command": command, "env": {"PYTHONPATH": str(folder)}}

    return started


@pytest.mark.soak
@pytest.mark.parametrize(("singles", "ensembles"), [(2, 1), (8, 4)])
async def test_services_of_two_versions_do_one_anothers_work(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    newer: Callable[[str], dict[str, Any]],
    singles: int,
    ensembles: int,
) -> None:
    # Given an agent and an aggregator of this version, the same of the next one, and the next one's router
    # (a router that asks: its commands are new; agents that answer: their answers are new to this version)
    other = {**AGENT, "name": "newer-singer"}
    services = [
        spawn_service("agent", "older-singer", agent=AGENT),
        spawn_service("agent", "newer-singer", agent=other, **newer("agent")),
        spawn_service("aggregator", "older-aggregator"),
        spawn_service("aggregator", "newer-aggregator", **newer("aggregator")),
    ]
    for router in (None, newer("router")):
        asking = spawn_service("router", "router", **(router or {}))
        for service in (*services, asking):
            await service.wait_ready(connection, READY_S)
        # When they are asked, by the router of this version and then by that of the next
        async with Choir(mesh_url) as mesh:
            asked = [mesh.ask("Tallest animal?", model="alpha", timeout_s=60) for _ in range(singles)]
            asked += [mesh.ask("Tallest animal?", models=["alpha"], timeout_s=60) for _ in range(ensembles)]
            results = await asyncio.gather(*asked)
            nodes = {node.instance for node in await mesh.nodes()}
        # Then all is answered, and all see one another
        assert [result.text for result in results] == ["the giraffe"] * (singles + ensembles)
        assert {"older-singer", "newer-singer", "older-aggregator", "newer-aggregator"} <= nodes
        await asking.stop()
    # And what this version could not read went on to somebody who could: nothing lies in the grave
    assert await bodies(connection, subjects.DEAD_STREAM) == []
    assert await bodies(connection, subjects.COMMANDS_STREAM) == []
