"""What a process and its host look like from inside: CPU, memory, graphics processors."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass

import psutil

from schemas.nodes import Gpu

GPU_SAMPLE_INTERVAL_S = 10.0
GPU_QUERY = "name,memory.total,memory.free,utilization.gpu"
MIB = 1024 * 1024


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
            load_average=os.getloadavg()[0],
            cpu_percent=self._process.cpu_percent(),
            memory_used_bytes=self._process.memory_info().rss,
            host_memory_free_bytes=psutil.virtual_memory().available,
            gpus=self._gpus,
        )


async def _query_gpus(nvidia_smi: str) -> tuple[Gpu, ...]:
    process = await asyncio.create_subprocess_exec(
        nvidia_smi,
        f"--query-gpu={GPU_QUERY}",
        "--format=csv,noheader,nounits",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return parse_gpus(output.decode()) if process.returncode == 0 else ()


def parse_gpus(csv: str) -> tuple[Gpu, ...]:
    """Reads what `nvidia-smi` prints: a line each, memory in MiB, `[N/A]` for what it cannot tell."""
    gpus = []
    for line in filter(None, csv.splitlines()):
        name, total, free, utilization = (part.strip() for part in line.rsplit(",", 3))
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
    return int(field) if field.isdigit() else 0
