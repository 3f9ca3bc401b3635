"""Streams whose gateway, agents and broker are killed again and again: all comes, and nothing comes twice.

Every other one is a chat completion, taken up by `Last-Event-ID`; those between are responses in the
background, taken up after the number of their last event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from infra.testing.choir_up import STOP_DEADLINE_S, choir_command, clean_environment, wait_until_up
from schemas.errors import ChoirError
from services.client import Choir
from services.gateway.openai.tests.test_broken_streams import Broken, Reader
from services.gateway.requests.identity import ID_HEADER, KEY_HEADER

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


class ResponseReader:
    """A client that reads the stream of a response in the background, and comes back with the number of its
    last event."""

    def __init__(self, key: str, model: str) -> None:
        self._headers = {KEY_HEADER: key}
        self._body = {"model": model, "input": "Count", "stream": True, "background": True}
        self._response_id = ""
        self.request_id = ""
        self.ids: list[int] = []
        self.text = ""
        self.done = False

    async def read(self, gateway: str) -> None:
        """Reads on at a gateway, to the end or as far as it gets."""
        async with (
            httpx.AsyncClient(base_url=gateway, timeout=60) as http,
            self._asked(http) as reply,
        ):
            if reply.status_code != 200:
                raise Broken((await reply.aread()).decode())
            self.request_id = reply.headers[ID_HEADER]
            data = ""
            async for line in reply.aiter_lines():
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                elif not line and data:
                    self._take(json.loads(data))
                    data = ""

    def _asked(self, http: httpx.AsyncClient) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
        if not self.ids:
            return http.stream("POST", "/v1/responses", json=self._body, headers=self._headers)
        after = {"stream": "true", "starting_after": str(self.ids[-1])}
        return http.stream("GET", f"/v1/responses/{self._response_id}", params=after)

    def _take(self, event: dict[str, Any]) -> None:
        """An event counts when it is complete, with its blank line; one without a number is an error of the
        stream itself."""
        if "sequence_number" not in event:
            raise Broken(json.dumps(event))
        self.ids.append(event["sequence_number"])
        match event["type"]:
            case "response.created":
                self._response_id = event["response"]["id"]
            case "response.output_text.delta":
                self.text += event["delta"]
            case "response.output_text.done":
                assert event["text"] == self.text
            case "response.completed":
                self.done = True
            case "response.failed" | "response.incomplete":
                raise AssertionError(event["response"].get("error") or event)


AnyReader = Reader | ResponseReader


def reader(number: int) -> AnyReader:
    """The client of one stream."""
    if number % 2:
        return ResponseReader(f"response {number}", "long")
    return Reader("/v1/chat/completions", f"stream {number}", model="long")


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


async def kill_again_and_again(url: str, seed: int, killed: Counter[str], readers: list[AnyReader]) -> None:
    """Kills one process after the other, with pauses between: first a gateway in the midst of a stream."""
    chance, victim = random.Random(seed), "gateway"
    while not any(one.ids and not one.done for one in readers):  # noqa: ASYNC110
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


async def read_to_the_end(reader: AnyReader, gateway: str, room: asyncio.Semaphore) -> int:
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
    readers = [reader(number) for number in range(STREAMS)]
    room = asyncio.Semaphore(AT_ONCE)
    began_s = time.monotonic()

    killer = asyncio.create_task(kill_again_and_again(url, fault_seed, killed, readers))
    try:
        async with asyncio.timeout(PATIENCE_S):
            breaks = await asyncio.gather(*(read_to_the_end(one, gateway, room) for one in readers))
    finally:
        killer.cancel()
        await asyncio.wait([killer])
        done = sum(one.done for one in readers)
        report(f"{done} of {STREAMS} streams at their end, killed {dict(killed)}", began_s)

    async with Choir(url) as choir:
        for one in readers:
            assert one.text == (await choir.fetch(one.request_id, wait_s=180)).text == TEXT
            assert len(set(one.ids)) == len(one.ids)
            if isinstance(one, ResponseReader):
                assert one.ids == list(range(len(one.ids)))
    chats, responses = sum(breaks[::2]), sum(breaks[1::2])
    report(f"{STREAMS} streams are the texts of their results, {chats} + {responses} breaks", began_s)
    assert chats > 0 and responses > 0
