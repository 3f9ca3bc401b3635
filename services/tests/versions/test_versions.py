"""Services of different versions in one mesh: what a newer one says is read, what it asks stays out of DEAD.

Services of another version run from a copy of `schemas`, beside those of this one. The newer version is a
copy in which every message has a field more. The older one is generated from the golden files
(older_schemas.py): it knows nothing of what came later.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.mesh import bodies, eventually, generate, queue_is_empty
from infra.testing.plugin import REPOSITORY, SpawnService
from schemas import subjects
from schemas.broker.catalog import ENDPOINTS
from schemas.commands import Ask, RawPrompt
from schemas.errors import UnsupportedVersion
from schemas.replies import Result
from schemas.tests.golden.samples import SAMPLES
from schemas.tests.golden.shared import LEASE
from services.client.client import Choir
from services.tests.versions.older_schemas import FOLDER, first_samples, running_from, write_older

READY_S = 180.0
AGENT = {"name": "singer", "backend": "instant", "models": [{"name": "alpha", "reply": "the giraffe"}]}
NEWS: dict[str, Any] = {"mood": "merry"}
COMMANDS = {"Generate", "Gather", "Summarize"}


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

    return partial(running_from, folder)


@pytest.mark.soak
async def test_services_of_two_versions_do_one_anothers_work(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    newer: Callable[[str], dict[str, Any]],
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
            asked = [mesh.ask("Tallest animal?", model="alpha", timeout_s=60) for _ in range(8)]
            asked += [mesh.ask("Tallest animal?", models=["alpha"], timeout_s=60) for _ in range(4)]
            results = await asyncio.gather(*asked)
            nodes = {node.instance for node in await mesh.nodes()}
        # Then all is answered, and all see one another
        assert [result.text for result in results] == ["the giraffe"] * 12
        assert {"older-singer", "newer-singer", "older-aggregator", "newer-aggregator"} <= nodes
        await asking.stop()
    # And what this version could not read went on to somebody who could: nothing lies in the grave
    assert await bodies(connection, subjects.DEAD_STREAM) == []
    await eventually(lambda: queue_is_empty(connection))


IN_THE_OLDER_VERSION = """
import importlib, json, sys
from pathlib import Path
from pydantic import ValidationError
from services.chassis.work.newer import newer_command

folder, kinds = Path(sys.argv[1]), json.loads(sys.stdin.read())
found = {}
for file, (module, name) in kinds.items():
    kind, data = getattr(importlib.import_module(module), name), (folder / f"{file}.json").read_bytes()
    try:
        kind.read(data)
        read = True
    except ValidationError:
        read = False
    try:
        kind.model_validate_json(data)
        newer = None
    except ValidationError as error:
        said = newer_command(data, error)
        newer = "damaged" if said is None else said.what
    found[file] = [read, newer]
print(json.dumps(found))
"""


def test_an_older_version_reads_what_a_newer_one_says_and_calls_newer_commands_newer(tmp_path: Path) -> None:
    # Given the older version, and every golden file of this one
    write_older(tmp_path)
    kinds = {name: (type(sample).__module__, type(sample).__name__) for name, sample in SAMPLES.items()}
    program = [sys.executable, "-P", "-c", IN_THE_OLDER_VERSION, str(FOLDER)]
    done = subprocess.run(
        program, input=json.dumps(kinds), env={"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=READY_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Then it takes what it would have sent itself, and reads what services say, without what it does not know
    first, asked = first_samples(), {endpoint.takes for endpoint in ENDPOINTS}
    assert {name: found[name] for name in first if found[name] != [True, None]} == {}
    unread = {kinds[name][1] for name, (read, _) in found.items() if not read}
    assert unread <= asked | COMMANDS, unread
    # And of commands that say more it knows that they are for somebody newer
    assert [
        name for name, (_, newer) in found.items() if newer == "damaged" and kinds[name][1] in COMMANDS
    ] == []
    for name, field in (
        ("generate_and_keep_the_model", "keep_alive_s"),
        ("generate_with_tools", "tools"),
        ("gather_that_may_stay_undecided", "min_confidence"),
        ("gather_in_waves", "effort"),
    ):
        assert field in found[name][1], (name, found[name])


@pytest.mark.soak
async def test_services_of_an_older_version_take_part_and_leave_what_is_newer_to_others(
    connection: Client, mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    # Given a mesh of the older version alone, which answers
    write_older(tmp_path)
    older = partial(running_from, tmp_path)
    both = ("alpha", "beta")
    models = [{"name": name, "reply": "the giraffe"} for name in both]
    services = {
        name: spawn_service(
            name,
            f"older-{name}",
            agent={**AGENT, "models": models} if name == "agent" else None,
            **older(name),
        )
        for name in ("agent", "aggregator", "router")
    }
    for service in services.values():
        await service.wait_ready(connection, READY_S)
    async with Choir(mesh_url) as mesh:
        assert (await mesh.ask("Tallest?", model="alpha", timeout_s=60)).text == "the giraffe"
        assert (await mesh.ask("Tallest?", models=[*both], timeout_s=60)).text == "the giraffe"
    # When services of this version come beside them, and this version's router in the place of theirs
    await services["router"].stop()
    present = [
        spawn_service("agent", "present-agent", agent={**AGENT, "name": "present", "models": models}),
        spawn_service("aggregator", "present-aggregator"),
        spawn_service("router", "present-router"),
    ]
    for service in present:
        await service.wait_ready(connection, READY_S)
    async with Choir(mesh_url) as mesh:
        plain = [mesh.ask("Tallest?", model="alpha", timeout_s=60) for _ in range(8)]
        plain += [mesh.ask("Tallest?", models=[*both], timeout_s=60) for _ in range(4)]
        raw = Ask(raw=RawPrompt(text="Tallest?"), model="alpha", timeout_s=60)
        more = [mesh.result_of(raw.model_copy(update={"request_id": f"raw-{n}"})) for n in range(8)]
        more += [mesh.ask("Tallest?", models=[*both], min_confidence=0.1, timeout_s=60) for _ in range(4)]
        answered = await asyncio.gather(*plain)
        newer = await asyncio.gather(*more)
    # Then all is answered, what is newer by those who know it
    assert {result.text for result in (*answered, *newer)} == {"the giraffe"}
    assert {answer.instance for result in newer[:8] for answer in result.answers} == {"present-agent"}
    assert all(service.alive for service in (services["agent"], services["aggregator"]))
    # And nothing lies in the grave, or is left over
    assert await bodies(connection, subjects.DEAD_STREAM) == []
    await eventually(lambda: queue_is_empty(connection))
