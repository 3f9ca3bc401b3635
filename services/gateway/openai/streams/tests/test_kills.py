"""Streams whose gateway, agents and broker are killed again and again: all comes, and nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from infra.testing.choir_up import STOP_DEADLINE_S, choir_command, clean_environment, wait_until_up
from schemas.errors import ChoirError
from services.client import Choir
from services.gateway.openai.tests.test_broken_streams import Broken, Reader

STREAMS = int(os.environ.get("CHOIR_TEST_BROKEN_STREAMS", "200"))
AT_ONCE = 20
TEXT = " ".join(f"word{number}" for number in range(60))
CONFIG = """
[broker]
port = 0
[gateway]
port = {port}
[metrics]
enabled = false
[[agents]]
name = "one"
backend = "instant"
models = [{{ name = "long", reply = "{text}", delay_ms = 5000, slots = 16 }}]
[[agents]]
name = "two"
backend = "instant"
models = [{{ name = "long", reply = "{text}", delay_ms = 5000, slots = 16 }}]
"""
VICTIMS = ("gateway", "gateway", "agent", "broker")
PAUSES_S = (6.0, 12.0)
"""Longer than what was killed takes to be there again."""
PATIENCE_S = 1_500.0


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a mesh and of its gateway, which is started again at the same port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "choir.toml"
    config.write_text(CONFIG.format(port=port, text=TEXT))
    environment = clean_environment(tmp_path / "state", CHOIR_GATEWAY__ENABLED="true")
    with (tmp_path / "up.log").open("wb") as output:
        up = subprocess.Popen(choir_command("up", "--config", str(config)), env=environment, stderr=output)
    try:
        yield wait_until_up(tmp_path / "state", up).url, f"http://127.0.0.1:{port}"
    finally:
        up.terminate()
        up.wait(STOP_DEADLINE_S)


def report(what: str, began_s: float) -> None:
    """Adds a line to the file that somebody may want."""
    with Path(os.environ.get("CHOIR_TEST_REPORT", os.devnull)).open("a") as file:
        file.write(f"{what}, after {time.monotonic() - began_s:.0f} s\n")


async def kill_again_and_again(url: str, seed: int, killed: Counter[str], readers: list[Reader]) -> None:
    """Kills one process after the other, with pauses between: first a gateway in the midst of a stream."""
    chance, victim = random.Random(seed), "gateway"
    while not any(reader.ids and not reader.done for reader in readers):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    while True:
        pid = await asyncio.to_thread(broker_of, url) if victim == "broker" else await one_of(url, victim)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[victim] += 1
        await asyncio.sleep(chance.uniform(*PAUSES_S))
        victim = chance.choice(VICTIMS)


def broker_of(url: str) -> int | None:
    port = urlsplit(url).port
    for found in psutil.net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr[1] == port:
            return found.pid
    return None


async def one_of(url: str, service: str) -> int | None:
    try:
        async with Choir(url) as choir:
            pids = [node.pid for node in await choir.nodes() if node.service == service]
    except ChoirError:
        return None
    return next((pid for pid in pids if psutil.pid_exists(pid)), None)


async def read_to_the_end(reader: Reader, gateway: str, room: asyncio.Semaphore) -> int:
    """Reads a stream, and comes back as often as it breaks; says how often that was."""
    async with room:
        for breaks in range(10_000):
            try:
                await reader.read(gateway)
            except (httpx.HTTPError, Broken) as error:
                if "differs" in str(error):
                    raise
            if reader.done:
                return breaks
            await asyncio.sleep(0.2)
    raise AssertionError("a stream never ends")


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S + 300)
async def test_streams_go_on_whatever_is_killed(mesh: tuple[str, str], fault_seed: int) -> None:
    url, gateway = mesh
    killed: Counter[str] = Counter()
    readers = [Reader("/v1/chat/completions", f"stream {n}", model="long") for n in range(STREAMS)]
    room = asyncio.Semaphore(AT_ONCE)
    began_s = time.monotonic()

    killer = asyncio.create_task(kill_again_and_again(url, fault_seed, killed, readers))
    try:
        async with asyncio.timeout(PATIENCE_S):
            breaks = await asyncio.gather(*(read_to_the_end(one, gateway, room) for one in readers))
    finally:
        killer.cancel()
        await asyncio.wait([killer])
        done = sum(reader.done for reader in readers)
        report(f"{done} of {STREAMS} streams at their end, killed {dict(killed)}", began_s)

    async with Choir(url) as choir:
        for reader in readers:
            assert reader.text == (await choir.fetch(reader.request_id, wait_s=180)).text == TEXT
            assert len(set(reader.ids)) == len(reader.ids)
    report(f"{STREAMS} streams are the texts of their results, {sum(breaks)} breaks", began_s)
    assert sum(breaks) > 0
