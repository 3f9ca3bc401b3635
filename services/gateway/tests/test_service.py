"""The gateway as a process: its lease, a port that is taken, its end."""

from __future__ import annotations

import json
import socket

import httpx
import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from infra.broker.local_cluster import free_port
from infra.testing.plugin import SpawnService
from schemas import subjects
from services.gateway.settings import GatewaySection


def test_by_default_it_is_there_and_for_this_host_alone() -> None:
    section = GatewaySection()

    assert (section.enabled, section.host, section.port) == (True, "127.0.0.1", 11_435)
    assert section.address == "http://127.0.0.1:11435"
    assert not section.keys_needed


async def test_with_an_access_log_each_request_has_one_line_and_nobody_writes_another(
    connection: Client, spawn_service: SpawnService
) -> None:
    secret = "choir-k-1-secretsecretsecretsecretsecretsecret"
    env = {
        "CHOIR_GATEWAY__PORT": str(free_port()),
        "CHOIR_GATEWAY__ACCESS_LOG": "true",
        "CHOIR_LOGGING__FORMAT": "json",
    }
    gateway = spawn_service("gateway", "gateway-1", env=env)
    await gateway.wait_ready(connection)
    chat = {"model": "nobody", "messages": "a secret question"}
    url = f"http://127.0.0.1:{env['CHOIR_GATEWAY__PORT']}"
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        replies = [
            await http.get("/?token=secret"),
            await http.get("/v1/v1/models", headers={"authorization": f"Bearer {secret}"}),
            await http.get(f"/dashboard/static/{secret}"),
            await http.get(f"/nothing/{secret}/x%0A%7B%22event%22%3A%22forged%22%7D%1B%5B31m"),
            await http.request("OPTIONS", "/" + "x" * 5_000),
            await http.post("/v1/chat/completions", json=chat),
            await http.head("/api/version"),
        ]
        sizes = [len(reply.content) for reply in replies]
    assert await gateway.stop() == 0

    log = [json.loads(line) for line in gateway.log().splitlines()]
    lines = [line for line in log if line["event"] in ("answered", "refused")]
    told = [(line["event"], line["method"], line["route"], line["status"], line["tenant"]) for line in lines]
    assert told == [
        ("answered", "GET", "/", 200, "local"),
        ("refused", "GET", "/v1/models", 401, None),
        ("refused", "GET", "/dashboard/static/{name}", 404, "local"),
        ("refused", "GET", '/nothing/(not told)/x\\x0a{"event":"forged"}\\x1b[31m', 404, "local"),
        ("refused", "OPTIONS", "/(not told)", 404, "local"),
        ("refused", "POST", "/v1/chat/completions", 400, "local"),
        ("answered", "HEAD", "/api/version", 200, "local"),
    ]
    assert all(line["ms"] >= 0 and line["address"] == "127.0.0.1" for line in lines)
    assert [line["bytes"] for line in lines] == sizes
    assert "secret" not in gateway.log() and "forged" not in {line["event"] for line in log}


async def test_a_taken_port_is_told_and_used_as_soon_as_it_is_free(
    connection: Client, spawn_service: SpawnService
) -> None:
    # Given a port on which somebody else listens
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = spawn_service("gateway", "gateway-1", env={"CHOIR_GATEWAY__PORT": str(port)})

        # When a gateway is to listen there, its lease says that it cannot, and why
        lease = await gateway.wait_state(connection, "broken")
        assert lease.problem is not None
        assert f"cannot listen at 127.0.0.1:{port}: address already in use" in lease.problem.message

    # Then it listens when the other one has gone
    await gateway.wait_ready(connection)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        assert (await http.get("/")).text == "Ollama is running"

        # And whoever is refused writes no line of its own into the log
        assert (await http.get("/api/x%0A2026-01-01 forged%1B[31m?key=secret")).status_code == 404

        # And a SIGTERM ends it in order, although a connection is open
        assert await gateway.stop() == 0
    lines = gateway.log().splitlines()
    assert [line for line in lines if "refused" in line and "forged" in line and "127.0.0.1" in line]
    assert not [line for line in lines if line.startswith("2026-01-01") or "\x1b" in line or "secret" in line]
    assert "Traceback" not in gateway.log()
    leases = await connection.jetstream().key_value(subjects.NODES_BUCKET)
    with pytest.raises(KeyNotFoundError):
        await leases.get(subjects.node_key("gateway", "gateway-1"))
