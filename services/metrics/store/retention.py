"""Removes what is too old or too much: whole hours of rows and of Parquet files, the oldest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.chassis.logs import get_logger
from services.metrics.store.database import Database
from services.metrics.store.parquet_export import EXPORTED, FILE_TIME, HOUR
from services.metrics.store.tables import quoted

log = get_logger("metrics.retention")


def expired_hour(now: datetime, keep_days: float) -> datetime:
    """The first hour that is kept."""
    return (now - timedelta(days=keep_days)).replace(minute=0, second=0, microsecond=0)


def drop_rows(database: Database, keep_days: float, keep_bytes: int) -> int:
    """Deletes rows that are too old, then whole hours until the rest fits; how many rows went.

    The hour that is being written always stays. It blocks: run it where the rows are written.
    """
    first_kept = expired_hour(utc_now(), keep_days)
    used = used_bytes(database)
    if used > keep_bytes:
        first_kept = max(first_kept, _fitting_hour(database, keep_bytes / used))
    with database.cursor() as cursor:
        gone = 0
        for table in EXPORTED:
            deleted = cursor.execute(f"DELETE FROM {quoted(table)} WHERE stored_at < ?", [first_kept])
            row = deleted.fetchone()
            gone += int(row[0]) if row else 0
        if gone:
            cursor.execute("FORCE CHECKPOINT")
            log.info("old rows have gone", rows=gone, before=first_kept.isoformat())
    return gone


def _fitting_hour(database: Database, share: float) -> datetime:
    """The hour from which on the rows are at most `share` of all; at the latest the last one."""
    with database.cursor() as cursor:
        hours = cursor.execute(
            "SELECT date_trunc('hour', stored_at) AS hour, count(*) FROM events "
            "GROUP BY hour ORDER BY hour DESC"
        ).fetchall()
    room = share * sum(count for _, count in hours)
    first_kept: datetime = hours[0][0] if hours else utc_now()
    for hour, count in hours:
        room -= count
        if room < 0:
            break
        first_kept = hour
    return first_kept


def used_bytes(database: Database) -> int:
    """Bytes of the rows in the file, without the space that is free for new ones."""
    with database.cursor() as cursor:
        row = cursor.execute("SELECT used_blocks * block_size FROM pragma_database_size()").fetchone()
    return int(row[0]) if row else 0


def drop_files(folder: Path, keep_days: float, keep_bytes: int) -> int:
    """Deletes Parquet files that are too old, then the oldest until the rest fits; how many went."""
    first_kept = expired_hour(utc_now(), keep_days)
    files = sorted(folder.glob("*/*.parquet"), key=lambda file: file.stem, reverse=True)
    room, gone = keep_bytes, 0
    for number, file in enumerate(files):
        room -= file.stat().st_size
        is_current = hour_of(file) >= utc_now() - HOUR
        if hour_of(file) < first_kept or (room < 0 and number and not is_current):
            file.unlink()
            gone += 1
    return gone


def hour_of(file: Path) -> datetime:
    """The hour that a Parquet file holds."""
    return datetime.strptime(file.stem, FILE_TIME)


def utc_now() -> datetime:
    """UTC without a time zone, as DuckDB's TIMESTAMP has it."""
    return datetime.now(UTC).replace(tzinfo=None)
