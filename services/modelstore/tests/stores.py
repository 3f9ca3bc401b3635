"""What the tests of the model store stand on: store processes on folders of their own, and small models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import psutil

from infra.demo_models.bench_model import write_bench_model
from infra.testing.mesh import eventually
from infra.testing.plugin import ServiceProcess, SpawnService
from schemas.errors import ChoirError, error_from_body
from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import ManageStore, StoreJob, StoreReply
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents
from services.chassis.registry.lease import Lease
from services.client.client import Choir
from services.modelstore.requests import SERVICE
from services.modelstore.service import ModelStore
from services.modelstore.settings import ModelStoreSection

JOB_DEADLINE_S = 180.0


def spawn_store(
    spawn: SpawnService, name: str, folder: Path, url: str | None = None, **settings: Any
) -> ServiceProcess:
    """A store on `folder`, with settings of section [modelstore]."""
    said = {"folder": folder, "min_free_bytes": 0, **settings}
    env = {f"CHOIR_MODELSTORE__{key.upper()}": str(value) for key, value in said.items()}
    return spawn("modelstore", name, url=url, env=env)


@asynccontextmanager
async def store_elsewhere(url: str, host: str, folder: Path) -> AsyncIterator[None]:
    """A store in the process of the test, on a host of another name; its instance is `<host>-store`."""
    connection = await nats.connect(url)
    identity = Identity(SERVICE, f"{host}-store", host)
    mesh = ServiceContext(connection, identity, ConnectionEvents())
    store = ModelStore(ModelStoreSection(folder=folder, min_free_bytes=0), identity)
    await store.start(mesh)
    lease = Lease(connection, identity, store.load)
    await lease.start()
    try:
        yield
    finally:
        await lease.stop()
        await store.stop()
        await connection.close()


def small_model(path: Path, *, layers: int = 4, width: int = 128, seed: int = 0) -> Path:
    """A GGUF of random weights: 4 layers of width 128 take 1 MB, 12 of 256 take 11."""
    return write_bench_model(path, layers=layers, width=width, seed=seed)


async def ask(choir: Choir, action: str, store: str | None = None, **fields: Any) -> StoreReply:
    """What a store answers."""
    return await choir.store(ManageStore(action=action, store=store, **fields))


async def job_of(choir: Choir, reply: StoreReply) -> StoreJob:
    """A job once it is over; its error is raised."""
    (begun,) = reply.jobs

    async def over() -> StoreJob | None:
        told = (await ask(choir, "jobs", job=begun.id)).jobs
        return next((job for job in told if job.state in ("done", "failed")), None)

    job = await eventually(over, JOB_DEADLINE_S)
    if job.problem is not None:
        raise error_from_body(job.problem)
    return job


async def failure_of(choir: Choir, reply: StoreReply) -> ChoirError:
    """The error with which a job has ended."""
    try:
        await job_of(choir, reply)
    except ChoirError as error:
        return error
    raise AssertionError("the job has not failed")


def node(instance: str, host: str, service: str = "agent", **fields: Any) -> NodeLease:
    """A lease that says no more than is told."""
    known = {"pid": 1, "version": "1", "state": "ready", "started_at_s": 0.0, "seen_at_s": 0.0}
    return NodeLease.model_validate(
        {"service": service, "instance": instance, "host": host, **known, **fields}
    )


def bytes_read(pid: int) -> int:
    """What a process has read so far, from files as from sockets."""
    return int(psutil.Process(pid).io_counters().read_chars)


def whole_files(folder: Path) -> dict[str, bytes]:
    """The content of the files under their final names."""
    blobs = folder / "blobs"
    return {path.name: path.read_bytes() for path in blobs.iterdir()} if blobs.is_dir() else {}
