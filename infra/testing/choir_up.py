"""A pytest plugin: one mesh of instant models, started as a user would: with `choir up`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from infra.host.credentials import Credentials
from services.client.local_mesh import RunningMesh, running_mesh

UP_DEADLINE_S = 240.0
STOP_DEADLINE_S = 20.0

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
]
"""
KEYS: dict[str, str] = {}
"""The key of the supervisor of each mesh that runs for tests, by its URL."""
QUARTET = ("choir-one", "choir-two", "choir-three", "choir-four")


def clean_environment(state: Path, **more: str) -> dict[str, str]:
    """The environment without settings of other meshes, and with a state folder of its own. A gateway has one
    port on a host, and costs time: none is started but where it is what a test is about."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")}
    return {**kept, "XDG_STATE_HOME": str(state), "COLUMNS": "100", "CHOIR_GATEWAY__ENABLED": "false", **more}


def choir_command(*arguments: str) -> list[str]:
    """The command line of `choir` in a process of its own."""
    return [sys.executable, "-m", "services.cli", *arguments]


async def connect_inside(url: str) -> Client:
    """A client that may do what the supervisor of the mesh at `url` may; on other brokers whoever comes."""
    key = KEYS.get(url)
    return await nats.connect(url) if key is None else await nats.connect(url, nkeys_seed=key)


def wait_until_up(state: Path, process: subprocess.Popen[bytes]) -> RunningMesh:
    """The mesh that `process` runs, once it answers."""
    end_s = time.monotonic() + UP_DEADLINE_S
    while time.monotonic() < end_s and process.poll() is None:
        if (mesh := running_mesh(state / "choir")) is not None:
            KEYS[mesh.url] = str(Credentials(state / "choir").operator)
            return mesh
        time.sleep(0.05)
    pytest.fail("choir up did not come up")


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
def inside_key(live_state: Path) -> str:
    """The file of the key that lets a test see and do what the supervisor of `live_mesh` may."""
    return str(Credentials(live_state / "choir").operator)


@pytest.fixture(scope="session")
def live_mesh(instant_config: Path, live_state: Path) -> Iterator[str]:
    """The URL of a mesh that `choir up` runs."""
    state = live_state
    log = state / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            choir_command("up", "--config", str(instant_config)), env=clean_environment(state), stderr=output
        )
    try:
        yield wait_until_up(state, process).url
    finally:
        process.terminate()
        process.wait(STOP_DEADLINE_S)
