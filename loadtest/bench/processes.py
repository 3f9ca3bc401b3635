"""The mesh under measurement: a broker and services, each in a process of its own, all ended at the end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import psutil
from nats.aio.client import Client

import infra
from infra.broker.broker import Broker
from infra.broker.local_cluster import LocalCluster
from infra.broker.provision import provision
from infra.host.children.processes import PREEXEC, terminate
from schemas.errors import ChoirError
from schemas.replies import StatusReply
from services.client.client import Choir
from services.client.finding.local_mesh import STATE_VARIABLE, running_mesh

READY_DEADLINE_S = 180.0
STOP_DEADLINE_S = 10.0


@dataclass
class BenchMesh:
    """What runs, and a connection to it."""

    url: str
    connection: Client
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def spawn(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Starts `python -m module` against this mesh; its output is dropped."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")}
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**inherited, "CHOIR_MESH__URL": self.url, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=PREEXEC,
            )
        )

    def spawn_agent(self, model: str, env: Mapping[str, str] | None = None, **options: Any) -> None:
        """An agent of one `instant` model."""
        agent = {"name": model, "backend": "instant", "models": [{"name": model, **options}]}
        own = {"CHOIR_AGENT": json.dumps(agent), "CHOIR_INSTANCE": f"agent-{model}"}
        self.spawn("services.agent", env={**(env or {}), **own})

    def spawn_llama_agent(self, model: Mapping[str, Any], threads: int) -> None:
        """An agent of one model file."""
        agent = {"name": str(model["name"]), "models": [model], "threads": threads}
        self.spawn("services.agent", env={"CHOIR_AGENT": json.dumps(agent)})

    async def wait_ready(self, models: Sequence[str]) -> None:
        """Returns when a router answers and all models can be asked."""
        async with asyncio.timeout(READY_DEADLINE_S):
            async with Choir(self.url) as client:
                while not await _serves(client, models):  # noqa: ASYNC110  (the router is asked)
                    await asyncio.sleep(0.1)


async def _serves(client: Choir, models: Sequence[str]) -> bool:
    try:
        status: StatusReply = await client.status()
    except ChoirError:
        return False
    return set(models) <= set(status.models) and "aggregator" in status.services


@asynccontextmanager
async def bench_mesh(
    folder: Path,
    models: Sequence[str],
    broker: Broker | LocalCluster | None = None,
    tls: Mapping[str, Any] | None = None,
) -> AsyncIterator[BenchMesh]:
    """A broker with the streams of `models`, and whatever is spawned while the context is open.

    `tls` is what nats-py has to be told of another broker than the one that is made here.
    """
    async with broker or Broker(folder) as broker:
        connection = await nats.connect(broker.url.split(","), **(tls or {}))
        mesh = BenchMesh(broker.url, connection)
        try:
            await provision(connection, models)
            yield mesh
        finally:
            await asyncio.gather(*(terminate(p, STOP_DEADLINE_S) for p in mesh.processes))
            await connection.close()


@asynccontextmanager
async def clients(url: str, count: int) -> AsyncIterator[list[Client]]:
    """So many clients, each with a connection of its own."""
    connections = [await nats.connect(url) for _ in range(count)]
    try:
        yield connections
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


@contextmanager
def choir_up(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`choir up` with the demo models, on a free port and with its state in `folder`."""
    config = Path(infra.__file__).parent / "choir.toml"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "up", "--config", str(config)],
        env={**inherited, STATE_VARIABLE: str(folder), "CHOIR_BROKER__PORT": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=PREEXEC,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def models_of(folder: Path) -> tuple[str, ...]:
    """The models of the mesh whose state is in `folder`; none while it is not there."""
    mesh = running_mesh(folder / "choir")
    if mesh is None:
        return ()
    try:
        async with Choir(mesh.url) as client:
            return tuple(model.name for model in await client.models())
    except ChoirError:
        return ()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all its descendants have used so far."""
    root = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:2]) for process in (root, *root.children(recursive=True)))
