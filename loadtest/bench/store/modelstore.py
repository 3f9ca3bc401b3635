"""A model of 380 MB to a host that has nothing: from one store to another, beside a bare copy over TCP.

Both ways end with a file that is on the disk. The bare copy reads, sends, receives and writes, and checks
nothing. Afterwards ten clients pull from the store at once, for its memory; and a pull runs beside asks.

`CHOIR_BENCH_PARTS` chooses parts, all of them by default: speed (with memory), beside.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from infra.demo_models.bench_model import default_path, write_bench_model
from loadtest.bench.processes import BenchMesh, bench_mesh, clients
from loadtest.bench.report import Report, Target, at_least, at_most
from loadtest.bench.store.beside import Pull, asks_beside
from schemas.errors import ChoirError, error_from_body
from schemas.nodes.model_store import ManageStore, StoreReply
from services.chassis.blobs.transfer import FRAME_BYTES, WORKERS, read_range
from services.client.client import Choir

ROUNDS = 3
PULLERS = 10
PULLED_FRAMES = 200
DEADLINE_S = 120.0
LOOK_S = 0.02
MB = 1_000_000
NAME = "bench"
PARTS_VARIABLE = "CHOIR_BENCH_PARTS"
PARTS = ("speed", "beside")
MOST_SLOWER = 2.0


def run() -> Report:
    """Measures."""
    chosen = os.environ.get(PARTS_VARIABLE, ",".join(PARTS)).split(",")
    raw: dict[str, Any] = {}
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as folder:
        if "speed" in chosen:
            raw |= uvloop.run(measured(Path(folder) / "speed"))
            share = raw["MB/s"]["store"] / raw["MB/s"]["bare"]
            targets += [
                at_least("store / bare TCP", share, 0.6),
                at_most("memory of a store at 10 pulls, MB", raw["store MB"]["most"], 150.0),
            ]
        if "beside" in chosen:
            found = uvloop.run(asks_beside(Path(folder) / "beside", prepared))
            raw |= found
            targets += [
                at_most(f"ask {which} of {model} beside a pull / in quiet", ratio, MOST_SLOWER)
                for which in ("p50", "p95")
                for model, ratio in found[f"{which} beside / quiet"].items()
            ]
    return Report(
        bench="modelstore",
        raw=raw,
        targets=tuple(targets),
        notes=("store: checked by SHA-256, chunk by chunk; bare: not checked; both with fsync at the end",),
    )


async def prepared(mesh: BenchMesh, choir: Choir, folder: Path) -> Pull:
    """Two stores, of which the first has the model. One pull takes it to the second, which drops it then."""
    for name in ("full", "empty"):
        spawn_store(mesh, name, folder / name)
    model = str(write_bench_model(default_path()))
    await job(choir, ManageStore(action="add", store="full", path=model, name=NAME))

    async def pull() -> float:
        began_s = time.perf_counter()
        await job(choir, ManageStore(action="pull", store="empty", name=NAME))
        took_s = time.perf_counter() - began_s
        await choir.store(ManageStore(action="remove", store="empty", name=NAME))
        return took_s

    return pull


async def measured(folder: Path) -> dict[str, Any]:
    """All figures."""
    model = write_bench_model(default_path())
    size = model.stat().st_size
    async with bench_mesh(folder / "broker", ()) as mesh:
        async with Choir(mesh.url) as choir:
            pull = await prepared(mesh, choir, folder)
            stored, bare = [], []
            for _ in range(ROUNDS):
                bare.append(await asyncio.to_thread(bare_copy_s, model, folder / "copy"))
                stored.append(await pull())
            entry = (await choir.store(ManageStore(action="show", name=NAME))).models[0]
        memory = await memory_mb(mesh, entry.model.files[0].sha256, size)
    speeds = {"store": size / MB / statistics.median(stored), "bare": size / MB / statistics.median(bare)}
    return {
        "MB/s": speeds,
        "seconds of store": {str(number): value for number, value in enumerate(stored)},
        "seconds of bare": {str(number): value for number, value in enumerate(bare)},
        "store MB": memory,
        "file MB": size / MB,
    }


def spawn_store(mesh: BenchMesh, name: str, folder: Path) -> None:
    """A store of its own."""
    env = {"CHOIR_INSTANCE": name, "CHOIR_MODELSTORE__FOLDER": str(folder)}
    mesh.spawn("services.modelstore", env=env)


async def job(choir: Choir, request: ManageStore) -> None:
    """Until it is done; its error is raised. A store that has only been started is waited for."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                begun: StoreReply = await choir.store(request)
                break
            except ChoirError:
                await asyncio.sleep(LOOK_S)
        while True:
            told = (await choir.store(ManageStore(action="jobs", job=begun.jobs[0].id))).jobs
            if told and told[0].state in ("done", "failed"):
                break
            await asyncio.sleep(LOOK_S)
    if told[0].problem is not None:
        raise error_from_body(told[0].problem)


def bare_copy_s(source: Path, target: Path) -> float:
    """Seconds of a copy through a socket, from a process that reads to this one."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(DEADLINE_S)
    port = listener.getsockname()[1]
    sender = multiprocessing.get_context("spawn").Process(target=_send, args=(source, port))
    sender.start()
    connection, _ = listener.accept()
    connection.settimeout(DEADLINE_S)
    began_s = time.perf_counter()
    with connection, target.open("wb", buffering=0) as file:
        buffer = bytearray(FRAME_BYTES)
        while received := connection.recv_into(buffer):
            file.write(memoryview(buffer)[:received])
        os.fsync(file.fileno())
    took_s = time.perf_counter() - began_s
    listener.close()
    sender.join()
    target.unlink()
    return took_s


def _send(source: Path, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection, source.open("rb", buffering=0) as file:
        while piece := file.read(FRAME_BYTES):
            connection.sendall(piece)


async def memory_mb(mesh: BenchMesh, sha256: str, size: int) -> dict[str, float]:
    """What the store takes before, and at most while ten clients pull from it."""
    process = psutil.Process(mesh.processes[0].pid)
    before, most, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(LOOK_S):
            most = max(most, process.memory_info().rss)

    watching = asyncio.create_task(asyncio.to_thread(watch))
    async with clients(mesh.url, PULLERS) as pullers:

        async def pull(number: int) -> None:
            client = pullers[number // WORKERS]
            for frame in range(PULLED_FRAMES // WORKERS):
                offset = (frame * FRAME_BYTES + number * 65_536) % (size - FRAME_BYTES)
                await read_range(client, "full", sha256, offset, FRAME_BYTES)

        await asyncio.gather(*(pull(number) for number in range(PULLERS * WORKERS)))
    done.set()
    await watching
    return {"before": before / MB, "most": most / MB}
