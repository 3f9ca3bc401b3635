"""Views: the one over all events, generated from the models, and those that people have written.

The written ones are numbered files in `sql/views`. A view that does not fit the tables is left out, and the
log says so.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from schemas.events import Event
from services.chassis.logs import get_logger
from services.metrics.ingest.columns import columns_of
from services.metrics.store.tables import ENVELOPE, event_tables, literal, quoted

log = get_logger("metrics.views")


@cache
def events_view() -> str:
    """`events`: every event of every kind, with what all of them carry."""
    shared = [name for name, _ in ENVELOPE] + [column.name for column in columns_of(Event)]
    names = ", ".join(quoted(name) for name in shared)
    parts = (f"SELECT {literal(kind)} AS kind, {names} FROM {quoted(kind)}" for kind in event_tables())
    return "CREATE OR REPLACE VIEW events AS " + " UNION ALL ".join(parts)


def install(connection: DuckDBPyConnection, folder: Path) -> None:
    """Makes all views anew: a file that has changed is in force from the next start on."""
    connection.execute(events_view())
    files = sorted(folder.glob("*.sql"))
    if not files:
        log.warning("no views", folder=str(folder))
    for file in files:
        try:
            connection.execute(file.read_text(encoding="utf-8"))
        except (duckdb.Error, OSError) as error:
            log.error("a view is left out", file=file.name, why=str(error).strip())
