"""Hosts whose clocks are wrong: real services, each with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from services.client.client import Choir

READY_S = 180.0
AN_HOUR = 3_600
CLOCK = """
import time
real = time.time
time.time = lambda: real() + {ahead_s}
"""

Ahead = Callable[[float], dict[str, str]]


@pytest.fixture
def ahead(tmp_path: Path) -> Ahead:
    """The environment of a Python process whose clock is so many seconds ahead."""

    def environment(ahead_s: float) -> dict[str, str]:
        folder = tmp_path / f"clock{ahead_s:+.0f}"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(CLOCK.format(ahead_s=ahead_s))
        return {"PYTHONPATH": str(folder)}

    return environment


async def test_hosts_whose_clocks_are_hours_apart_work_together(
    connection: Client, mesh_url: str, spawn_service: SpawnService, ahead: Ahead
) -> None:
    # Given a router a minute behind the broker, an agent and a summarizer an hour ahead, and an aggregator as
    # much behind
    agent = {"name": "singer", "backend": "instant", "models": [{"name": "alpha", "reply": "the giraffe"}]}
    services = [
        spawn_service("router", env=ahead(-61)),
        spawn_service("agent", agent=agent, env=ahead(AN_HOUR)),
        spawn_service("aggregator", env=ahead(-AN_HOUR)),
        spawn_service("summarizer", env=ahead(AN_HOUR)),
    ]
    for service in services:
        await service.wait_ready(connection, READY_S)
    # When each knows the broker's time, and they are asked for what has to be done within minutes
    async with Choir(mesh_url) as mesh:

        async def clocks() -> dict[str, float] | None:
            known = {node.service: node.clock_ahead_s for node in await mesh.nodes()}
            told = {service: ahead_s for service, ahead_s in known.items() if ahead_s is not None}
            return told if len(told) == len(services) else None

        nodes = await eventually(clocks)
        single = await mesh.ask("Tallest animal?", model="alpha", timeout_s=180)
        ensemble = await mesh.ask("Tallest animal?", models=["alpha"], timeout_s=180)
        chained = await mesh.ask("Tallest animal?", model="alpha", summarize_with=["alpha"], timeout_s=180)
        problems = (await mesh.status()).problems
    # Then they answer, and it is said whose clock is wrong
    assert [result.text for result in (single, ensemble, chained)] == ["the giraffe"] * 3
    assert abs(single.completed_at_s - single.accepted_at_s) < 180
    assert nodes["agent"] == pytest.approx(AN_HOUR, abs=60)
    assert nodes["aggregator"] == pytest.approx(-AN_HOUR, abs=60)
    assert nodes["router"] == pytest.approx(-61, abs=5)
    assert any("its clock is" in problem and "the broker's" in problem for problem in problems)
