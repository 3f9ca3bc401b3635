"""Keeps memory that is freed, up to a bound: whoever moves megabytes one after another finds it there.

glibc gives each large block back to the system at once, and the next one is made of pages that are not there
yet: a fault for every 4 KiB. Without them a store sends a file in two thirds of the time of its processor.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of `mallopt(3)`."""
LARGEST_BLOCK_BYTES = 8 * 1024 * 1024


def keep_freed(most_bytes: int) -> None:
    """From now on about so much of what was freed stays with this process, in blocks of up to 8 MiB. Does
    nothing where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(MMAP_THRESHOLD, LARGEST_BLOCK_BYTES)
    mallopt(TRIM_THRESHOLD, most_bytes)
