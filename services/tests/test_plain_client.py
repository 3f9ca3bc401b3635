"""A NATS client that knows nothing of Choir: the one that the README shows, word for word."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.plugin import SpawnService
from services.tests.load import SmallMesh

pytestmark = pytest.mark.long

README = Path(__file__).resolve().parents[2] / "README.md"
SHOWN = re.compile(r"<!-- plain-client:begin -->\n```python\n(.*?)```\n<!-- plain-client:end -->", re.DOTALL)


def shown_client() -> Callable[[str], Awaitable[str]]:
    """The function in the README."""
    shown = SHOWN.search(README.read_text())
    assert shown is not None, "the README shows no plain client"
    names: dict[str, Any] = {}
    exec(compile(shown[1], str(README), "exec"), names)
    main: Callable[[str], Awaitable[str]] = names["main"]
    return main


async def test_the_plain_client_of_the_readme_is_answered(
    mesh_url: str, connection: Client, spawn_service: SpawnService
) -> None:
    mesh = SmallMesh(spawn_service, mesh_url)
    await mesh.wait_ready(connection)

    text = await shown_client()(mesh_url)

    assert text.endswith("says Paris")


async def test_the_services_api_sees_every_service(
    mesh_url: str, connection: Client, spawn_service: SpawnService
) -> None:
    """`nats micro ls` asks `$SRV.PING`; one answer comes from every instance."""
    mesh = SmallMesh(spawn_service, mesh_url)
    await mesh.wait_ready(connection)

    for verb in ("PING", "INFO", "STATS"):
        inbox = connection.new_inbox()
        replies = await connection.subscribe(inbox)
        await connection.publish(f"$SRV.{verb}", reply=inbox)
        seen = [await replies.next_msg(timeout=60) for _ in range(4)]
        assert sorted(re.findall(r'"name": ?"(router|aggregator|agent)"', " ".join(
            msg.data.decode().split('"endpoints"')[0] for msg in seen
        ))) == ["agent", "agent", "aggregator", "router"]  # fmt: skip
        await replies.unsubscribe()
