"""The folder of the embedded broker before its server starts: room on the disk, and whose streams it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from infra.broker.access.accounts import INSIDE
from infra.broker.server.configuration import reserved_bytes
from schemas.broker import catalog
from schemas.errors import ConfigurationError

LEAST_FREE_BYTES = 64 * catalog.MIB

NO_ACCOUNT = "$G"
"""What the server calls the account of a configuration without accounts."""

SYSTEM_ACCOUNT = "$SYS"
"""Where a server of a cluster keeps what the servers have agreed on."""


def move_streams(directory: Path) -> None:
    """What an earlier Choir has stored, whose broker knew no accounts, belongs to the services."""
    before, now = (directory / "store" / "jetstream" / name for name in (NO_ACCOUNT, INSIDE))
    if before.is_dir() and not now.exists():
        before.rename(now)


def check_store(directory: Path, *, in_cluster: bool) -> None:
    """A server of a cluster throws away the streams of a server that was alone, and the other way round:
    ConfigurationError."""
    jetstream = directory / "store" / "jetstream"
    streams = any(jetstream.glob("*/streams/*"))
    clustered = (jetstream / SYSTEM_ACCOUNT / "_js_").is_dir()
    if streams and clustered != in_cluster:
        was, now = ("one of a cluster", "alone") if clustered else ("alone", "one of a cluster")
        raise ConfigurationError(
            f"the store in {directory} was made by a broker that was {was}, and now it would be {now}: its "
            "streams would be lost. With the setting as it was: `choir up`, `choir backup DIR`, "
            "`choir down`; then set store_dir in section [broker] to another folder, and `choir restore DIR` "
            "(into a cluster: with `choir restore --beside` on its other hosts meanwhile)",
            field="broker.cluster",
        )


def check_disk(directory: Path) -> None:
    """ConfigurationError if there is no room to begin with; a warning if there is less than may be needed."""
    free = shutil.disk_usage(directory).free
    if free < LEAST_FREE_BYTES:
        raise ConfigurationError(
            f"the disk of {directory} is full ({free // catalog.MIB} MiB free): make room, "
            "or set store_dir in section [broker] to another disk"
        )
    if free < reserved_bytes("file"):
        structlog.get_logger("broker").warning(
            "less disk space than the streams may grow to",
            free_mib=free // catalog.MIB,
            may_grow_to_mib=reserved_bytes("file") // catalog.MIB,
            folder=str(directory),
        )
