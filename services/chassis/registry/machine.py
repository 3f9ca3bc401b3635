"""Measures a process and its host: CPU, memory, graphics processors."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil

from schemas.nodes.lease import Gpu
from services.chassis.logs import get_logger
from services.chassis.process.limits import memory_available_bytes

GPU_SAMPLE_INTERVAL_S = 10.0
GPU_DEADLINE_S = 4.0
"""Shorter than a lease: a driver that hangs must not take a healthy service off the mesh."""
GPU_QUERY = "name,memory.total,memory.free,utilization.gpu"
MIB = 1024 * 1024

T = TypeVar("T")

log = get_logger("chassis.machine")


@dataclass(frozen=True)
class MachineSample:
    """One look at the machine; `cpu_percent` is this process's, 100 being one core."""

    load_average: float
    cpu_percent: float
    memory_used_bytes: int
    host_memory_free_bytes: int
    gpus: tuple[Gpu, ...]


class Machine:
    """Samples this process and its host."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._nvidia_smi = shutil.which("nvidia-smi")
        self._gpus: tuple[Gpu, ...] = ()
        self._gpus_at = -GPU_SAMPLE_INTERVAL_S

    async def sample(self) -> MachineSample:
        """Looks now; graphics processors are looked at every ten seconds."""
        if self._nvidia_smi and time.monotonic() - self._gpus_at > GPU_SAMPLE_INTERVAL_S:
            self._gpus_at = time.monotonic()
            self._gpus = await _query_gpus(self._nvidia_smi)
        return MachineSample(
            load_average=_asked(lambda: os.getloadavg()[0], 0.0),
            cpu_percent=_asked(self._process.cpu_percent, 0.0),
            memory_used_bytes=_asked(lambda: self._process.memory_info().rss, 0),
            host_memory_free_bytes=_asked(memory_available_bytes, 0),
            gpus=self._gpus,
        )


def _asked(question: Callable[[], T], otherwise: T) -> T:
    """What the operating system answers; it may refuse, which is no reason to say nothing at all."""
    try:
        return question()
    except (psutil.Error, OSError) as error:
        log.warning("the machine does not tell", why=str(error) or type(error).__name__)
        return otherwise


async def _query_gpus(nvidia_smi: str) -> tuple[Gpu, ...]:
    """What `nvidia-smi` says; nothing if it cannot be run, fails, or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            nvidia_smi,
            f"--query-gpu={GPU_QUERY}",
            "--format=csv,noheader,nounits",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.warning("graphics processors are not known", why=str(error))
        return ()
    try:
        async with asyncio.timeout(GPU_DEADLINE_S):
            output, _ = await process.communicate()
    except TimeoutError:
        log.warning("graphics processors are not known", why=f"no answer within {GPU_DEADLINE_S:g} s")
        return ()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return parse_gpus(output.decode(errors="replace")) if process.returncode == 0 else ()


def parse_gpus(csv: str) -> tuple[Gpu, ...]:
    """Reads what `nvidia-smi` prints: a line each, memory in MiB, `[N/A]` for what it cannot tell.

    Other lines, such as warnings of the driver, are passed over.
    """
    gpus = []
    for line in csv.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) != 4:
            continue
        name, total, free, utilization = parts
        gpus.append(
            Gpu(
                name=name,
                memory_total_bytes=_number(total) * MIB,
                memory_free_bytes=_number(free) * MIB,
                utilization_percent=float(_number(utilization)),
            )
        )
    return tuple(gpus)


def _number(field: str) -> int:
    return int(field) if field.isdecimal() and field.isascii() else 0
