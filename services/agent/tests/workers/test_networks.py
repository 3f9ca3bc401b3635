"""Where workers may be: addresses are looked at, not names."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpcore
import pytest
from pydantic import ValidationError

from schemas.errors import WorkerFailed
from schemas.nodes.workers import Worker
from services.agent.backends.servers.bounded_http import CheckedNetwork
from services.agent.networks import Networks, networks_of
from services.agent.settings import KeySection, WorkersSection
from services.agent.tests.servers.http_server import Reply, Request, http_server
from services.agent.workers.external import connect

PRIVATE = Networks(("10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "fd00:ec2::254",
        "100.100.100.200",
    ],
)
def test_some_addresses_are_never_asked(address: str) -> None:
    everywhere = Networks(("0.0.0.0/0", "::/0"), frozenset({"metadata"}))
    for networks in (Networks(), everywhere):
        assert "never asked" in (networks.refusal("metadata", address) or "")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.168.1.4", "10.1.2.3", "8.8.8.8", "fd12::1"])
def test_without_a_list_every_other_address_may_be_asked(address: str) -> None:
    assert Networks().refusal("host", address) is None


def test_with_a_list_only_its_networks_may_be_asked_and_the_servers_of_keys() -> None:
    keys = {"LAB": KeySection(variable="LAB_KEY", hosts=("https://API.example.com",))}
    networks = networks_of(WorkersSection(networks=("10.0.0.0/8",), keys=keys))
    assert networks.refusal("somewhere", "10.1.2.3") is None
    assert networks.refusal("somewhere", "::ffff:10.1.2.3") is None
    assert networks.refusal("api.example.com", "93.184.216.34") is None
    assert "none of the networks" in (networks.refusal("somewhere", "93.184.216.34") or "")


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match="is no network"):
        WorkersSection(networks=("10.0.0.1/8",))


async def test_a_name_that_resolves_to_a_forbidden_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A harmless name may have any address, and another one the next time that it is asked for."""
    asked = 0

    async def resolve(host: str, port: int, **_: Any) -> list[tuple[object, ...]]:
        nonlocal asked
        asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(WorkerFailed, match=r"169\.254\.169\.254 is an address that is never asked"):
        await CheckedNetwork(Networks()).connect_tcp("innocent.example", 80, 1.0)
    assert asked == 1


async def test_of_several_addresses_the_allowed_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(request: Request, reply: Reply) -> None:
        raise AssertionError("nobody asks")

    async with http_server(nothing) as server:

        async def resolve(host: str, port: int, **_: Any) -> list[tuple[object, ...]]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("169.254.169.254", "127.0.0.2", "127.0.0.1")
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        stream = await CheckedNetwork(Networks()).connect_tcp("two.example", server.port, 5.0)
        assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
        await stream.aclose()


async def test_a_name_that_nobody_knows_is_a_failed_connection() -> None:
    with pytest.raises(httpcore.ConnectError):
        await CheckedNetwork(Networks()).connect_tcp("no-such-name.invalid", 80, 20.0)


@pytest.mark.parametrize("kind", ["lm_studio", "ollama"])
async def test_a_registered_worker_outside_the_networks_is_not_asked(kind: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.json({"data": [{"id": "tiny"}], "models": [{"model": "tiny"}]})

    async with http_server(answer) as server:
        worker = Worker.model_validate(
            {"id": "w", "type": kind, "host": "127.0.0.1", "port": server.port, "model": "tiny"}
        )
        backend = connect(worker, WorkersSection(networks=("10.0.0.0/8",)))
        with pytest.raises(WorkerFailed, match="none of the networks that workers may be in"):
            await backend.check()
        await backend.close()
        assert not server.requests
