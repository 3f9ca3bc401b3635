"""Samples how busy the processors of the agents were while an evaluation ran."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from schemas.errors import ChoirError
from schemas.message import Struct
from schemas.nodes.lease import NodeLease
from services.chassis.process.cancelling import ended
from services.client.client import Choir

INTERVAL_S = 1.0


class UsageSample(Struct):
    """One agent at one moment. 100 % is one core; `gpu_percent` is the mean of its host's GPUs, if any."""

    at_s: float
    instance: str
    models: tuple[str, ...]
    cpu_percent: float
    memory_bytes: int
    gpu_percent: float | None = None


@asynccontextmanager
async def watched(mesh: Choir, agents: Iterable[str], path: Path) -> AsyncIterator[None]:
    """Appends samples of the instances that serve `agents` to a file while the context is open."""
    task = asyncio.create_task(_watch(mesh, frozenset(agents), path))
    try:
        yield
    finally:
        await ended([task])
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(mesh: Choir, agents: frozenset[str], path: Path) -> None:
    seen_at_s: dict[str, float] = {}
    with path.open("a", encoding="utf-8") as file:
        while True:
            for lease in await _leases(mesh):
                before_s = seen_at_s.get(lease.instance)
                seen_at_s[lease.instance] = lease.seen_at_s
                if before_s is None or before_s == lease.seen_at_s:
                    continue  # nothing new; what a first lease says is of the time before the evaluation
                if agents.intersection(model.name for model in lease.models):
                    file.write(_sample(lease).model_dump_json(exclude_none=True) + "\n")
                    file.flush()
            await asyncio.sleep(INTERVAL_S)


async def _leases(mesh: Choir) -> tuple[NodeLease, ...]:
    """The leases of now; none where the router does not answer, which is a gap among the samples."""
    try:
        return await mesh.nodes()
    except ChoirError:
        return ()


def _sample(lease: NodeLease) -> UsageSample:
    gpus = [gpu.utilization_percent for gpu in lease.gpus]
    return UsageSample(
        at_s=time.time(),
        instance=lease.instance,
        models=tuple(model.name for model in lease.models),
        cpu_percent=lease.cpu_percent,
        memory_bytes=lease.memory_used_bytes,
        gpu_percent=sum(gpus) / len(gpus) if gpus else None,
    )


def read_usage(path: Path) -> list[UsageSample]:
    """The samples of a run; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [UsageSample.model_validate_json(line) for line in lines if line.endswith("\n")]
