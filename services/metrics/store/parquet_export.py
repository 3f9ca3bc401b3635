"""Writes rows as Parquet files that any DuckDB may open while the mesh runs.

    parquet/<table>/<hour>.parquet        2026-11-21T01.parquet, by the broker's clock (UTC)

An hour with new rows is written anew, beside the file that is there, and takes its place at once: whoever
reads sees the one or the other, whole. So a crash costs nothing, and running it twice changes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection

from services.chassis.logs import get_logger
from services.metrics.store.database import Database
from services.metrics.store.tables import event_tables, literal, quoted

EXPORTED = (*event_tables(), "unread_events")
HOUR = timedelta(hours=1)
FILE_TIME = "%Y-%m-%dT%H"
PARTIAL = ".part"

log = get_logger("metrics.parquet")


class ParquetExport:
    """Writes what is new since the last run. It blocks, on a cursor of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self) -> int:
        """Brings the files up to date; how many were written. Raises duckdb.Error, OSError on a full disk."""
        with self._database.cursor() as cursor:
            return sum(self._export(cursor, table) for table in EXPORTED)

    def _export(self, cursor: DuckDBPyConnection, table: str) -> int:
        cursor.execute("BEGIN")
        try:
            hours, reached = _new_hours(cursor, table)
            for hour in hours:
                self._write(cursor, table, hour)
            if reached is not None:
                cursor.execute("DELETE FROM parquet_position WHERE kind = ?", [table])
                cursor.execute("INSERT INTO parquet_position VALUES (?, ?, ?)", [table, *reached])
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        return len(hours)

    def _write(self, cursor: DuckDBPyConnection, table: str, hour: datetime) -> None:
        folder = self._database.parquet / table
        folder.mkdir(exist_ok=True)
        path = folder / f"{hour.strftime(FILE_TIME)}.parquet"
        partial = path.with_name(path.name + PARTIAL)
        rows = (
            f"SELECT * FROM {quoted(table)} WHERE stored_at >= {_timestamp(hour)} "
            f"AND stored_at < {_timestamp(hour + HOUR)} ORDER BY stream_epoch, sequence"
        )
        try:
            cursor.execute(f"COPY ({rows}) TO {literal(str(partial))} (FORMAT parquet, COMPRESSION zstd)")
            if _rows_in(cursor, path) > _rows_in(cursor, partial):
                log.warning("kept a file with more rows than the database has", file=path.name, table=table)
            else:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _new_hours(cursor: DuckDBPyConnection, table: str) -> tuple[list[datetime], tuple[int, int] | None]:
    """The hours that have rows after the last run, and the key of the last of these rows."""
    row = cursor.execute(
        "SELECT stream_epoch, sequence FROM parquet_position WHERE kind = ?", [table]
    ).fetchone()
    epoch, sequence = row or (0, 0)
    found = cursor.execute(
        "SELECT date_trunc('hour', stored_at) AS hour, max((stream_epoch, sequence)) AS reached "
        f"FROM {quoted(table)} "
        "WHERE stream_epoch > $epoch OR (stream_epoch = $epoch AND sequence > $sequence) "
        "GROUP BY hour ORDER BY hour",
        {"epoch": epoch, "sequence": sequence},
    ).fetchall()
    return [hour for hour, _ in found], max((reached for _, reached in found), default=None)


def _timestamp(moment: datetime) -> str:
    return f"TIMESTAMP {literal(moment.isoformat(sep=' '))}"


def _rows_in(cursor: DuckDBPyConnection, path: Path) -> int:
    if not path.exists():
        return 0
    row = cursor.execute("SELECT num_rows FROM parquet_file_metadata(?)", [str(path)]).fetchone()
    return int(row[0]) if row else 0
