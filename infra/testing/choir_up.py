"""A pytest plugin: one mesh of instant models, started as a user would: with `choir up`.

Each process of a run has one, which is at work also while nobody asks it. So the files whose tests ask it
come first, and it ends with the last of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.host.children.fork_server import FORKS
from infra.host.credentials import Credentials
from infra.testing import forked_services
from infra.testing.plugin import PatientClient
from services.client.finding.local_mesh import RunningMesh, running_mesh

UP_DEADLINE_S = 240.0
STOP_DEADLINE_S = 180.0
TYPED_DEADLINE_S = 240.0

CONFIG = """
[broker]
port = 0
[[agents]]
name = "quartet"
backend = "instant"
models = [
  { name = "choir-one", reply = "Paris" },
  { name = "choir-two", reply = "Paris.", delay_ms = 10 },
  { name = "choir-three", reply = "Lyon" },
  { name = "choir-four", reply = "It is Paris of course", delay_ms = 50 },
]
[[agents]]
name = "sleeper"
backend = "instant"
models = [
  { name = "choir-slow", reply = "at last", delay_ms = 60000 },
  { name = "choir-short", reply = "one two three", context_tokens = 140 },
  { name = "choir-long", reply = "LONG", delay_ms = 60000 },
]
""".replace("LONG", " ".join(["word"] * 100))
"""`choir-slow` says nothing for half a minute; of `choir-long` something can be read long before its end."""

KEYS: dict[str, str] = {}
"""The key of the supervisor of each mesh that runs for tests, by its URL."""
LIVE_MESH = "live_mesh"
QUARTET = ("choir-one", "choir-two", "choir-three", "choir-four")

_running = pytest.StashKey[ExitStack]()
_without = pytest.StashKey[frozenset[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """The mesh of this process, when it runs."""
    config.stash[_running] = ExitStack()
    config.stash[_without] = frozenset()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that use the mesh come first; the order is otherwise as it was."""
    files = {item.path for item in items if _uses_mesh(item)}
    items.sort(key=lambda item: item.path not in files)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes which tests come after the last one that uses the mesh."""
    last = max((number for number, item in enumerate(session.items) if _uses_mesh(item)), default=-1)
    session.config.stash[_without] = frozenset(item.nodeid for item in session.items[last + 1 :])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ends the mesh before the first test that comes after all that use it."""
    if item.nodeid in item.config.stash[_without]:
        item.config.stash[_running].close()


def _uses_mesh(item: pytest.Item) -> bool:
    return LIVE_MESH in getattr(item, "fixturenames", ())


def clean_environment(state: Path, **more: str) -> dict[str, str]:
    """The environment without settings of other meshes, and with a state folder of its own. A gateway has one
    port on a host, and costs time, and so does a model store: none is started but where it is what a test is
    about."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")}
    without = {"CHOIR_GATEWAY__ENABLED": "false", "CHOIR_MODELSTORE__ENABLED": "false"}
    return {**kept, "XDG_STATE_HOME": str(state), "COLUMNS": "100", **without, **more}


def quick_choir(*arguments: str) -> list[str]:
    """The same for a mesh that a test is not about: its services are forked, which spares their imports."""
    module = forked_services.MODULE if FORKS else "services.cli"
    return [sys.executable, "-m", module, *arguments]


def choir_command(*arguments: str) -> list[str]:
    """The command line of `choir` in a process of its own."""
    return [sys.executable, "-m", "services.cli", *arguments]


STANDS_STILL = """
import asyncio, runpy, sys
from infra.host.running.services import HostServices

start = HostServices.start

async def stand_still(*arguments):
    await start(*arguments)
    await asyncio.Event().wait()

HostServices.start = stand_still
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


def starting_for_ever(command: list[str]) -> list[str]:
    """The same command of `choir`, whose host starts its services and is never ready: whoever ends a start in
    its middle may come late on a busy machine."""
    python, _, module, *arguments = command
    return [python, "-c", STANDS_STILL, module, *arguments]


async def connect_inside(url: str) -> Client:
    """A patient client that may do what the supervisor of the mesh at `url` may; elsewhere whoever comes."""
    client = PatientClient()
    await client.connect(url, nkeys_seed=KEYS.get(url))
    return client


def wait_until_up(state: Path, process: subprocess.Popen[bytes]) -> RunningMesh:
    """The mesh that `process` runs, once it answers."""
    end_s = time.monotonic() + UP_DEADLINE_S
    while time.monotonic() < end_s and process.poll() is None:
        if (mesh := running_mesh(state / "choir")) is not None:
            KEYS[mesh.url] = str(Credentials(state / "choir").operator)
            return mesh
        time.sleep(0.05)
    pytest.fail("choir up did not come up")


def typed(state: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What a command of `choir` answered on the host whose state folder is in `state`."""
    return subprocess.run(
        choir_command(*arguments), env=clean_environment(state, **more), cwd=state,
        capture_output=True, text=True, check=False, timeout=TYPED_DEADLINE_S,
    )  # fmt: skip


@contextmanager
def starting(state: Path, config: Path, *options: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`choir up`, which is stopped at the end, with its state folder and the log `up.log` in `state`."""
    with (state / "up.log").open("wb") as output:
        process = subprocess.Popen(
            quick_choir("up", "--config", str(config), *options),
            env=clean_environment(state, **more),
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        finally:
            process.kill()


@contextmanager
def up(state: Path, config: Path, *options: str, **more: str) -> Iterator[str]:
    """The URL of a mesh that `choir up` runs, as `starting` starts it."""
    with starting(state, config, *options, **more) as process:
        yield wait_until_up(state, process).url


@pytest.fixture(scope="session")
def instant_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A choir.toml of instant models."""
    path = tmp_path_factory.mktemp("config") / "choir.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def live_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the mesh of `live_mesh` keeps its state folder."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def live_mesh(instant_config: Path, live_state: Path, pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of a mesh that `choir up` runs."""
    with pytestconfig.stash[_running] as running:
        yield running.enter_context(up(live_state, instant_config))
