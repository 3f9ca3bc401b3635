"""Servers on loopback, each a process that is started, waited for and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from infra.host.children.processes import PREEXEC, last_lines
from loadtest.peers.environments import CannotStart

READY_DEADLINE_S = 180.0
STOP_DEADLINE_S = 10.0


@asynccontextmanager
async def server(
    command: Sequence[str], url: str, ready: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """Runs `command` until the context ends; gives `url` once `url + ready` answers with success.

    CannotStart, with the last thing that it wrote, if it ends before or is not ready in time.
    """
    once = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=once) as client:

        async def answers() -> bool:
            try:
                return (await client.get(url + ready, timeout=5.0)).is_success
            except httpx.HTTPError:
                return False  # it does not listen yet

        async with _running(command, answers, env):
            yield url


@asynccontextmanager
async def listener(
    command: Sequence[str], port: int, env: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Runs `command` until the context ends, which begins once somebody takes connections at `port`.

    CannotStart as for `server`.
    """

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    async with _running(command, listens, env):
        yield


@asynccontextmanager
async def _running(
    command: Sequence[str], ready: Callable[[], Awaitable[bool]], env: Mapping[str, str] | None
) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = _start(command, log, {**os.environ, **(env or {})})
        try:
            await _until_ready(process, ready, log)
            yield
        finally:
            await asyncio.to_thread(_end_group, process)


def _start(command: Sequence[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=PREEXEC,
            start_new_session=True,
        )


async def _until_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], Awaitable[bool]], log: Path
) -> None:
    end_s = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < end_s and process.poll() is None:
        if await ready():
            return
        await asyncio.sleep(0.2)
    why = "it ended" if process.poll() is not None else f"it was not ready after {READY_DEADLINE_S:g} s"
    raise CannotStart(f"{why}: {' '.join(last_lines(log, count=3).split())}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            continue
        if number is signal.SIGTERM:
            time.sleep(0.5)  # children that outlive their parent get a moment, then the second signal
