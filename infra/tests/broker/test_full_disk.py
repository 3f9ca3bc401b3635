"""A mesh whose broker has a small disk of its own, which is filled and emptied."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client

from infra.host.supervisor import Supervisor
from infra.settings import load_host_settings
from infra.testing.plugin import connect, fill_disk
from infra.testing.switched_off import switched_off
from schemas import subjects

pytestmark = pytest.mark.long

DEADLINE_S = 180.0
REPLY_TIMEOUT_S, LOST_AFTER_S = 15.0, 5.0
"""A refusal takes some seconds. A reply that is lost where the broker starts again is waited for less."""
ANSWERED_WITHIN_S = 30.0
TIMES_FULL = 4
CONFIG = """
[broker]
port = 0
store_dir = "{disk}/store"
min_free_bytes = 1048576
[[agents]]
name = "alice"
backend = "instant"
models = [{{ name = "blue", reply = "blue" }}]
""" + switched_off("aggregator", "summarizer", "metrics")


async def request(
    nc: Client, subject: str, timeout_s: float = REPLY_TIMEOUT_S, **fields: Any
) -> dict[str, Any]:
    """The reply to one request, or nothing if none comes."""
    try:
        reply = await nc.request(subject, json.dumps(fields).encode(), timeout=timeout_s)
    except nats.errors.Error:
        return {}
    document: dict[str, Any] = json.loads(reply.data)
    return document


async def eventually(
    ask: Callable[[], Awaitable[dict[str, Any]]], holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The first reply of which something holds; the last one if none comes in time."""
    end_s = time.monotonic() + DEADLINE_S
    while True:
        reply = await ask()
        if holds(reply) or time.monotonic() > end_s:
            return reply
        await asyncio.sleep(0.2)


@pytest.mark.soak
async def test_a_mesh_whose_disk_was_full_answers_again_by_itself(disk: Path, tmp_path: Path) -> None:
    # Given a mesh that answers
    (tmp_path / "choir.toml").write_text(CONFIG.format(disk=disk))
    said: list[str] = []
    supervisor = Supervisor(
        load_host_settings(tmp_path / "choir.toml"),
        state=tmp_path / "state",
        forward=lambda instance, line: said.append(f"{instance}: {line}"),
    )
    await supervisor.start()
    nc = await connect(supervisor.url)

    async def ask(timeout_s: float = REPLY_TIMEOUT_S) -> dict[str, Any]:
        return await request(nc, subjects.ASK, timeout_s, prompt="colour?", model="blue")

    async def status() -> dict[str, Any]:
        return await request(nc, subjects.STATUS)

    async def fill() -> Path:
        """Fills the disk. Returns when who looks is told so, and nobody is answered."""
        filler = fill_disk(disk)
        looked = await eventually(status, lambda reply: "disk is full" in str(reply.get("problems")))
        assert any("disk is full" in problem for problem in looked["problems"])
        assert "text" not in await eventually(lambda: ask(LOST_AFTER_S), lambda reply: "text" not in reply)
        return filler

    async def empty(filler: Path) -> float:
        """Makes room. In how many seconds asks are answered again; then nobody is told of a problem."""
        room_at_s = time.monotonic()
        filler.unlink()
        answered = await eventually(lambda: ask(LOST_AFTER_S), lambda reply: reply.get("text") == "blue")
        assert answered.get("text") == "blue"
        took_s = time.monotonic() - room_at_s
        assert (await eventually(status, lambda reply: reply.get("problems") == []))["problems"] == []
        return took_s

    try:
        assert (await ask()).get("text") == "blue"
        # When its disk is full, then who asks and who looks is told so
        filler = await fill()
        refused = await eventually(ask, lambda reply: "disk is full" in str(reply.get("error")))
        assert refused["error"]["code"] == "broker_unavailable", refused
        # And when there is room, it answers soon, however often it was full
        took_s = [await empty(filler)]
        for _ in range(TIMES_FULL - 1):
            took_s.append(await empty(await fill()))
        assert max(took_s) < ANSWERED_WITHIN_S, took_s
        assert [line for line in said if "has stopped storing, and is started again" in line]
    finally:
        await nc.close()
        await supervisor.stop()
