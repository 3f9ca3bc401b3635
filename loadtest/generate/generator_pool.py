"""The generator processes of a run: started together, listened to, and ended whatever happens."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from loadtest.faults import LoadtestError, NoMesh
from loadtest.generate.generator_process import MESH, READY
from loadtest.generate.order import Order
from loadtest.generate.plan import LoadPlan
from loadtest.generate.progress import Snapshot
from loadtest.outcome.measurements import Measurements, read_records

READY_PATIENCE_S = 30.0
START_IN_S = 0.3
STOP_PATIENCE_S = 10.0
MAX_LINE = 1 << 20

OnProgress = Callable[[Sequence[Snapshot]], None]
"""Is told the latest snapshot of every process."""

Processes = list[asyncio.subprocess.Process]


class GeneratorPool:
    """Runs a plan from as many processes as it says, against a mesh or a bare responder at `url`."""

    def __init__(self, plan: LoadPlan, url: str, folder: Path, target: str = MESH) -> None:
        self._plan = plan
        self._url = url
        self._folder = folder
        self._target = target
        self._stopped = False
        self._processes: Processes = []
        self.started_at_s = 0.0

    def clock(self) -> float:
        """Seconds since the start of the run."""
        return time.time() - self.started_at_s

    def stop(self) -> None:
        """Ends the run early; what was measured until now is kept."""
        self._stopped = True
        for process in self._processes:
            if process.returncode is None:
                process.terminate()

    async def run(self, on_progress: OnProgress, on_start: Callable[[], None] = lambda: None) -> Measurements:
        """What was measured. `on_start` is called when all processes are about to start.

        Raises NoMesh if one of them cannot reach the mesh, LoadtestError if one dies.
        """
        snapshots: dict[int, Snapshot] = {}

        def heard(process: int, snapshot: Snapshot) -> None:
            snapshots[process] = snapshot
            on_progress(list(snapshots.values()))

        async with self._started() as processes:
            await asyncio.gather(*(_ready(process) for process in processes))
            self.started_at_s = time.time() + START_IN_S
            on_start()
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{self.started_at_s}\n".encode())
            if self._stopped:
                self.stop()
            await asyncio.gather(*(_listen(p, number, heard) for number, p in enumerate(processes)))
        return read_records([self._records(number) for number in range(self._plan.processes)])

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[Processes]:
        try:
            for number in range(self._plan.processes):
                self._processes.append(await self._start(number))
            yield self._processes
        finally:
            await asyncio.gather(*(_ended(process) for process in self._processes))

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        order = self._folder / f".order-{number}"
        Order(self._plan, number, self._url, self._target, self._records(number)).write(order)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "loadtest.generate.generator_process", str(order)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
            start_new_session=True,  # Ctrl-C is for us: we tell the others
        )

    def _records(self, number: int) -> Path:
        return self._folder / f".records-{number}.parquet"


async def _ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_PATIENCE_S):
            line = await process.stdout.readline()
    except TimeoutError as error:
        raise LoadtestError(f"a generator was not ready after {READY_PATIENCE_S:g} s") from error
    if line.decode().strip() != READY:
        raise NoMesh(await _last_words(process))


async def _listen(
    process: asyncio.subprocess.Process, number: int, heard: Callable[[int, Snapshot], None]
) -> None:
    """Passes on what a process says, until it ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        heard(number, json.loads(line))
    if await process.wait():
        raise LoadtestError(f"a generator died: {await _last_words(process)}")


async def _last_words(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
    return said[-1] if said else f"it ended with code {await process.wait()}"


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
