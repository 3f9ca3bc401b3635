"""A ceiling for the memory of the process: the database counts its blocks, but not each string it makes.

`SELECT repeat('x', 4000000000)` would take four gigabytes beside DuckDB's own limit. With a ceiling of the
operating system the allocation fails, DuckDB says so in an error, and everything else goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

CEILING_BYTES = 1024 * 1024 * 1024
"""Memory of the process beyond DuckDB's `memory_limit`: rarely used, never by stored rows."""


STATM = Path("/proc/self/statm")
DATA_PAGES = 5
"""The place of the number of private writable pages in /proc/PID/statm."""


def taken_bytes() -> int:
    """What of the ceiling is taken already; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    import resource

    return int(STATM.read_text().split()[DATA_PAGES]) * resource.getpagesize()


def limit_memory(memory_mb: int, beside_bytes: int = CEILING_BYTES) -> None:
    """Sets the ceiling for the rest of the process's life: `memory_mb` of the database and `beside_bytes`.

    Only Linux has one that counts what is in use.
    """
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (beside_bytes + memory_mb * 1024 * 1024, hard))
