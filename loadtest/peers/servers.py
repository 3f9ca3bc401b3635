"""HTTP servers on loopback, each a process that is started, waited for and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
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
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = _start(command, log, {**os.environ, **(env or {})})
        try:
            await _until_ready(process, url + ready, log)
            yield url
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


async def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end_s = time.monotonic() + READY_DEADLINE_S
    async with httpx.AsyncClient() as client:
        while time.monotonic() < end_s and process.poll() is None:
            try:
                if (await client.get(url, timeout=5.0)).is_success:
                    return
            except httpx.HTTPError:
                pass  # it does not listen yet
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
