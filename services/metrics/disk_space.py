"""The free space of the disk: where it is nearly full, the event database grows no more.

It stops before the broker's store finds no room on the same disk: events wait in their stream meanwhile, and
nothing is lost that the stream keeps.
"""

from __future__ import annotations

import shutil
from pathlib import Path

MIB = 1024**2


def shortage(folder: Path, least_free_bytes: int) -> str | None:
    """Why nothing more is written into `folder`; None while its disk has `least_free_bytes` free."""
    if shutil.disk_usage(folder).free >= least_free_bytes:
        return None
    return (
        f"the disk is nearly full (less than {least_free_bytes // MIB} MiB free in {folder}): events wait "
        "in their stream until there is room, and no Parquet files are written; make room, or set keep_bytes "
        "lower in section [metrics]"
    )
