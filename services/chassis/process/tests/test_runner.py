"""The life of a service process: how it starts, what can be asked of it, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from infra.broker.broker import Broker
from infra.broker.local_cluster import free_port
from infra.testing.mesh import enqueue, events, eventually, generate, open_mesh, queue_is_empty
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.replies import Answer, Result

AGENT: dict[str, Any] = {
    "name": "singer",
    "backend": "instant",
    "models": [{"name": "alpha", "slots": 2, "reply": "la la", "delay_ms": 0}],
}
SLOW = AGENT | {"models": [{"name": "alpha", "slots": 1, "reply": "la la", "delay_ms": 1500}]}


async def http_get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 while nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, b""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("service", "agent"),
    [("router", None), ("aggregator", None), ("agent", AGENT)],
    ids=lambda v: str(v)[:10],
)
async def test_every_service_is_seen_by_the_services_api_and_leaves_in_order(
    service: str, agent: dict[str, Any] | None, connection: Client, spawn_service: SpawnService
) -> None:
    process = spawn_service(service, f"{service}-one", agent=agent)
    lease = await process.wait_ready(connection)
    seen = {
        verb: json.loads((await connection.request(f"$SRV.{verb}.{service}", b"", timeout=60)).data)
        for verb in ("PING", "INFO", "STATS")
    }
    code = await process.stop()

    assert lease.version == seen["PING"]["version"]
    assert seen["PING"]["metadata"]["instance"] == f"{service}-one"
    assert seen["INFO"]["description"]
    assert seen["INFO"]["endpoints"]
    assert all(endpoint["num_errors"] == 0 for endpoint in seen["STATS"]["endpoints"])
    assert code == 0, process.log()
    leases = await connection.jetstream().key_value(subjects.NODES_BUCKET)
    assert subjects.node_key(service, f"{service}-one") not in await _keys(leases)
    kinds = [event.kind for event in await events(connection)]
    assert (kinds[0], kinds[-1]) == ("service_started", "service_stopped")
    with pytest.raises(NoRespondersError):
        await connection.request(f"$SRV.PING.{service}", b"", timeout=10)


async def _keys(bucket: Any) -> list[str]:
    try:
        keys: list[str] = await bucket.keys()
    except Exception as nothing:  # noqa: BLE001
        assert "no keys" in str(nothing).lower(), nothing
        return []
    return keys


async def test_told_to_end_it_finishes_what_it_has_begun_and_leaves_the_rest(
    connection: Client, spawn_service: SpawnService
) -> None:
    process = spawn_service("agent", agent=SLOW)
    await process.wait_ready(connection)
    mesh = open_mesh(connection, "router")
    heard = await connection.subscribe(subjects.event("agent", "task_pulled"))
    await enqueue(mesh, generate("begun"))
    await heard.next_msg(60)
    process.process.send_signal(signal.SIGTERM)
    await process.logged("draining")
    await enqueue(mesh, generate("late"))
    assert await process.exited() == 0

    stored = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("begun"))
    assert stored is not None
    assert Result.model_validate_json(stored.data).text == "la la"
    assert await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("late")) is None
    other = spawn_service("agent", agent=AGENT)
    await other.wait_ready(connection)
    await eventually(lambda: queue_is_empty(connection))
    assert await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("late")) is not None


async def test_prompts_and_answers_are_in_no_log_and_no_event(
    connection: Client, spawn_service: SpawnService
) -> None:
    process = spawn_service("agent", agent=AGENT, env={"CHOIR_LOGGING__LEVEL": "debug"})
    await process.wait_ready(connection)
    mesh = open_mesh(connection, "router")
    await enqueue(mesh, generate("r1", routing_slip=("aggregator",)))
    subject = subjects.generate("interactive", "alpha", "r2")
    broken = generate("r2").to_bytes()[:-1] + b', "round": "tallest"}'
    await mesh.storage.enqueue(subject, broken, message_id="r2")
    await eventually(lambda: queue_is_empty(connection))
    assert await process.stop() == 0

    stored = await mesh.storage.last(subjects.ANSWERS_STREAM, subjects.answer("r1", 1, "alpha"))
    assert stored is not None
    assert Answer.model_validate_json(stored.data).text == "la la"
    told = process.log() + " ".join(event.model_dump_json() for event in await events(connection))
    assert "r2" in told
    assert "tallest" not in told
    assert "la la" not in told


async def test_health_is_there_for_whoever_watches_over_http(
    connection: Client, spawn_service: SpawnService
) -> None:
    port = free_port()
    process = spawn_service("agent", agent=AGENT, env={"CHOIR_HEALTH__PORT": str(port)})
    await process.wait_ready(connection)

    async def ready() -> bytes | None:
        status, body = await http_get(port, "/health/ready")
        return body if status == 200 else None

    lease = json.loads(await eventually(ready))
    assert (lease["state"], lease["models"][0]["name"]) == ("ready", "alpha")
    status, _ = await http_get(port, "/health/live")
    assert status in (200, 204)
    assert await process.stop() == 0, process.log()


async def test_health_says_when_nothing_can_be_served(
    connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    port = free_port()
    broken = {"name": "mute", "models": [{"name": "alpha", "path": str(tmp_path / "missing.gguf")}]}
    process = spawn_service("agent", agent=broken, env={"CHOIR_HEALTH__PORT": str(port)})
    lease = await process.wait_state(connection, "broken")
    status, body = await eventually(lambda: _answered(port))
    assert (status, json.loads(body)["state"]) == (503, "broken")
    assert lease.problem is not None and "missing.gguf" in lease.problem.message


async def _answered(port: int) -> tuple[int, bytes] | None:
    status, body = await http_get(port, "/health/ready")
    return (status, body) if body not in (b"", b"starting") else None


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"CHOIR_ROUTER__COLOUR": "red"}, "router.colour"),
        ({"CHOIR_CONFIG": "nowhere.toml"}, "nowhere.toml"),
    ],
)
async def test_bad_settings_end_it_with_2_and_the_name_of_what_is_wrong(
    env: dict[str, str], complaint: str, spawn_service: SpawnService
) -> None:
    process = spawn_service("router", url="nats://127.0.0.1:1", env=env)
    assert await process.exited(30) == 2
    assert complaint in process.log()
    assert "Traceback" not in process.log()


async def test_an_agent_that_is_told_nothing_says_what_it_misses(spawn_service: SpawnService) -> None:
    process = spawn_service("agent", url="nats://127.0.0.1:1")
    assert await process.exited(30) == 2
    assert "agent: it is missing" in process.log()


async def test_without_a_broker_it_waits_for_one(own_broker: Broker, spawn_service: SpawnService) -> None:
    await own_broker.stop()
    process = spawn_service("router", url=own_broker.url)
    await process.logged("refused", 180)
    await own_broker.restart()
    client = await connect(own_broker.url)
    await process.wait_ready(client, 180)
    await client.close()


@pytest.mark.parametrize("serves_health", [False, True], ids=["", "health"])
async def test_it_can_be_ended_while_it_waits_for_a_broker(
    serves_health: bool, spawn_service: SpawnService
) -> None:
    health = {"CHOIR_HEALTH__PORT": str(free_port())} if serves_health else {}
    process = spawn_service("router", url="nats://127.0.0.1:1", env=health)
    await process.logged("refused", 180)
    await process.stop(30)
    assert process.process.returncode != -signal.SIGKILL
    assert "Traceback" not in process.log()


async def test_it_can_be_ended_while_the_broker_is_away(
    own_broker: Broker, spawn_service: SpawnService
) -> None:
    client = await connect(own_broker.url)
    process = spawn_service("router", url=own_broker.url)
    await process.wait_ready(client)
    await client.close()
    own_broker.kill()
    await process.logged("lost")
    await process.stop(30)
    assert process.process.returncode != -signal.SIGKILL, process.log()
