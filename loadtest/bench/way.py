"""The files on the way of a request: whose functions run from the router to the reply, in which process.

`python -m loadtest.bench way` asks an ensemble of the demo models for its majority, a few times, on a mesh of
its own. In each process every call of a function of this repository is noted while a request is under way.
What runs for every one of the requests is on the way; what runs for some of them only (a lease, a flush of
events) is not. With `CHOIR_WAY_FUNCTIONS=1` in the environment the functions are named too.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import uvloop

from infra.demo_models.family import FAMILY, FOLDER
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_most
from services.client import Choir

ROOT = Path(__file__).parents[2]
REQUESTS = 15
SERVICES = ("router", "aggregator", "agent")
FLOOR = ("schemas", "services/chassis")
TELEMETRY = ("services/chassis/telemetry", "services/chassis/logs.py", "services/tasks/task_events.py")
BELOW = "services/engine"
MOST_FILES = 25
"""Of the services and what they share, on a quiet machine: one more asks for a reason. On a busy one requests
take so long that leases are renewed during each of them, and count too."""
PROMPT = "What is the capital of France?"

Called = dict[str, list[str]]
"""By file, the functions that were called."""


class Recorder:
    """Notes which functions of this repository are called in this process while it `listens`."""

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()
        self._listening = False

    def install(self) -> None:
        """From now on, in all threads that begin now or later."""
        sys.setprofile(self._note)
        threading.setprofile(self._note)

    def remove(self) -> None:
        """In this thread, and in those that begin later, nothing is noted any more."""
        sys.setprofile(None)
        threading.setprofile(None)

    def begin(self) -> None:
        """Forgets what was noted, and notes."""
        self._codes.clear()
        self._listening = True

    def end(self) -> Called:
        """What was called since `begin`."""
        self._listening = False
        called: Called = {}
        for code in self._codes.copy():
            path = Path(code.co_filename)
            if path.is_relative_to(ROOT) and "<" not in code.co_qualname.replace("<locals>", ""):
                file = str(path.relative_to(ROOT))
                if not file.startswith((".venv", "loadtest", "infra")):
                    called.setdefault(file, []).append(code.co_qualname)
        return called

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        if self._listening and event == "call":
            self._codes.add(frame.f_code)


def become(module: str, out: Path) -> None:
    """Runs a service that begins to note on SIGUSR1, and writes what it has noted to `out` on SIGUSR2."""
    recorder = Recorder()

    def begin(*_: object) -> None:
        recorder.begin()
        out.touch()

    def end(*_: object) -> None:
        unfinished = out.with_suffix(".new")
        unfinished.write_text(json.dumps(recorder.end()))
        unfinished.rename(out.with_suffix(".json"))

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    recorder.install()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class Watch:
    """The processes of a mesh that note what they call, and this one, which is the client."""

    def __init__(self, mesh: BenchMesh, folder: Path) -> None:
        self._mesh = mesh
        self._folder = folder
        self._of: dict[str, int] = {}
        self._client = Recorder()
        self._client.install()

    def spawn(self, name: str, module: str, env: Mapping[str, str] | None = None) -> None:
        """Starts a service that is watched."""
        self._mesh.spawn("loadtest.bench.way", module, str(self._folder / name), env=env)
        self._of[name] = self._mesh.processes[-1].pid

    async def of(self, client: Choir) -> dict[str, Called]:
        """What each process called for one request."""
        await self._signal(signal.SIGUSR1, "")
        self._client.begin()
        result = await client.ask(PROMPT, strategies=("majority",), models=tuple(FAMILY))
        called = {"client": self._client.end()}
        assert len(result.answers) == len(FAMILY)
        await self._signal(signal.SIGUSR2, ".json")
        for name in self._of:
            told = (self._folder / name).with_suffix(".json")
            called[name] = json.loads(told.read_text())
            told.unlink()
            (self._folder / name).unlink()
        return called

    async def _signal(self, number: signal.Signals, suffix: str) -> None:
        for pid in self._of.values():
            os.kill(pid, number)
        for name in self._of:
            while not (self._folder / name).with_suffix(suffix).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def follow(folder: Path) -> dict[str, Called]:
    """By process, what each of several requests called there. Agents are one."""
    async with bench_mesh(folder, tuple(FAMILY)) as mesh:
        watch = Watch(mesh, folder)
        watch.spawn("router", "services.router")
        watch.spawn("aggregator", "services.aggregator")
        for name in FAMILY:
            agent = {
                "name": name,
                "threads": 1,
                "models": [{"name": name, "path": str(FOLDER / f"{name}.gguf")}],
            }
            watch.spawn(name, "services.agent", {"CHOIR_AGENT": json.dumps(agent), "CHOIR_INSTANCE": name})
        await mesh.wait_ready(tuple(FAMILY))
        async with Choir(mesh.url) as client:
            await client.ask(PROMPT, strategies=("majority",), models=tuple(FAMILY))
            followed = [await watch.of(client) for _ in range(REQUESTS)]
    called: dict[str, Called] = {name: in_all([one[name] for one in followed]) for name in followed[0]}
    agents = [called.pop(name) for name in FAMILY]
    called["agent"] = in_all(agents)
    return called


def in_all(called: list[Called]) -> Called:
    """The functions that are in each of them."""
    first, *others = called
    common = {
        file: [name for name in names if all(name in other.get(file, ()) for other in others)]
        for file, names in first.items()
    }
    return {file: sorted(names) for file, names in common.items() if names}


def floor_of(file: str) -> str:
    """Where a file stands: on the way itself, or on a floor that every way passes."""
    if file.startswith(TELEMETRY):
        return "telemetry"
    if file.startswith(BELOW):
        return "engine"
    return next((floor for floor in FLOOR if file.startswith(floor)), "way")


def counted(called: Mapping[str, Called]) -> dict[str, dict[str, str]]:
    """By floor, each file with how many of its functions run in which process."""
    rows: dict[str, dict[str, str]] = {}
    for process in ("client", *SERVICES):
        for file, names in sorted(called[process].items()):
            place = "client" if process == "client" and floor_of(file) == "way" else floor_of(file)
            row = rows.setdefault(place, {})
            row[file] = f"{row[file]}, {process} {len(names)}" if file in row else f"{process} {len(names)}"
    return rows


def run() -> Report:
    """Follows requests through a mesh in a folder that is gone afterwards."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        called = uvloop.run(follow(Path(folder)))
    rows = counted(called)
    raw: dict[str, Any] = {"files": {place: len(files) for place, files in rows.items()}, **rows}
    if "CHOIR_WAY_FUNCTIONS" in os.environ:
        raw["functions"] = called
    return Report(
        bench="way",
        raw=raw,
        targets=(at_most("files of services on the way to the reply", len(rows["way"]), MOST_FILES),),
        notes=(f"{REQUESTS} requests, {time.perf_counter() - started:.0f} s",),
    )


if __name__ == "__main__":
    become(sys.argv[1], Path(sys.argv[2]))
