"""A copy of the event database that another process writes meanwhile.

DuckDB writes a change into its log, and from time to time the log into the file: into blocks that no header
refers to yet, and then the header. So while the header stays as it is, what is copied of the file and of the
log is what a crash at that moment would have left, and that DuckDB can open. A copy whose header changed is
made again. Opening it proves it, and brings the log into the file.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

import duckdb

from infra.broker.backup.manifest import PRIVATE
from schemas.errors import NotReady
from services.metrics.store.database import FILE_NAME, WAL_SUFFIX

HEADERS_BYTES = 3 * 4096
"""The main header, and two of which the one with the higher count is the one that holds."""
MOST_ATTEMPTS = 20
PAUSE_S = 0.25


def copy_database(source: Path, folder: Path) -> Path:
    """Copies the database at `source` into `folder`; the copy is one file without a log.

    Raises NotReady if it is written so fast that no copy can be made, OSError for a full disk.
    """
    target = folder / FILE_NAME
    for _ in range(MOST_ATTEMPTS):
        if _copied(source, target) and _opens(target):
            target.chmod(PRIVATE)
            return target
        time.sleep(PAUSE_S)
    _remove(target)
    raise NotReady(
        f"{source} is written so fast that {MOST_ATTEMPTS} copies were no use: try again when less is asked",
        retry_after_s=60.0,
    )


def _copied(source: Path, target: Path) -> bool:
    """Whether file and log were copied while no log was brought into the file."""
    _remove(target)
    before = _mark(source)
    shutil.copyfile(source, target)
    with suppress(FileNotFoundError):  # all of it is in the file then
        shutil.copyfile(_log(source), _log(target))
    return _mark(source) == before


def _mark(source: Path) -> tuple[bytes, int | None]:
    """What changes when the log is brought into the file."""
    with source.open("rb") as file:
        headers = file.read(HEADERS_BYTES)
    try:
        return headers, _log(source).stat().st_ino
    except FileNotFoundError:
        return headers, None


def _opens(target: Path) -> bool:
    """Whether DuckDB can use it.

    A stream that is restored has another time of its making, and is the same one all the same: without that
    time metrics goes on where it was, and takes no event up twice.
    """
    try:
        with duckdb.connect(str(target)) as database:
            database.execute("UPDATE stream_position SET stream_created = ''")
            database.execute("CHECKPOINT")
    except duckdb.Error:
        return False
    return not _log(target).exists()


def _log(path: Path) -> Path:
    return path.with_name(path.name + WAL_SUFFIX)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _log(path).unlink(missing_ok=True)
