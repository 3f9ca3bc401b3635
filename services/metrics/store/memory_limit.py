"""A ceiling for the memory of the process: the database counts its blocks, but not each string it makes.

`SELECT repeat('x', 4000000000)` would take four gigabytes beside DuckDB's own limit. With a ceiling of the
operating system the allocation fails, DuckDB says so in an error, and everything else goes on.
"""

from __future__ import annotations

import sys

CEILING_BYTES = 1024 * 1024 * 1024
"""Memory of the process beyond DuckDB's `memory_limit`: rarely used, never by stored rows."""


def limit_memory(memory_mb: int) -> None:
    """Sets the ceiling for the rest of the process's life; only Linux has one that counts what is in use."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (CEILING_BYTES + memory_mb * 1024 * 1024, hard))
