"""The rows of one tenant, in a database of their own: what belongs to others is not there to be found.

A statement of a tenant that does not operate the mesh runs on a copy in memory, in a process of its own: all
tables and views, and of the tables that the statement names the tenant's own rows. No name, function or
nesting leads from there to the event database. Ids are in it as the tenant knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from schemas.subjects import LOCAL_TENANT, owned_id
from services.metrics.query.sandbox import tables_in
from services.metrics.store.database import limit_spill
from services.metrics.store.tables import create, definitions, event_tables, literal, quoted
from services.metrics.store.views import install

BATCH_ROWS = 8_192
IDS = ("request_id", "task_id", "event_id", "error_request_id")
"""Columns in which a request's id is, or a part of one."""
ARRIVING = "arriving"


@contextmanager
def own_database(views: Path, spill: Path, memory_mb: int, spill_mb: int) -> Iterator[DuckDBPyConnection]:
    """An empty database in memory, with the tables and views of the event database."""
    copy = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "python_scan_all_frames": "false",
            "memory_limit": f"{memory_mb}MB",
            "threads": "1",
            "temp_directory": str(spill),
        },
    )
    try:
        limit_spill(copy, spill_mb)
        copy.execute("SET TimeZone = 'UTC'")
        # DuckDB takes a forked process for one that somebody looks at.
        copy.execute("SET enable_progress_bar = false")
        copy.execute("; ".join(create(name, columns) for name, columns in definitions().items()))
        install(copy, views)
        yield copy
    finally:
        copy.close()


def insert(copy: DuckDBPyConnection, kind: str, rows: pa.RecordBatchReader) -> None:
    """Stores rows of one kind of event."""
    copy.register(ARRIVING, rows)
    copy.execute(f"INSERT INTO {quoted(kind)} SELECT * FROM {ARRIVING}").fetchall()
    copy.unregister(ARRIVING)


def shut(copy: DuckDBPyConnection) -> None:
    """Shuts the copy off from all else."""
    copy.execute("SET enable_external_access = false")
    copy.execute("SET lock_configuration = true")


def kinds_of(statement: str, copy: DuckDBPyConnection) -> list[str]:
    """The tables of events that a statement reads, those behind its views among them."""
    views = {
        name for (name,) in copy.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    }
    named = tables_in(statement, copy)
    behind = (copy.get_table_names(f"FROM {quoted(view)}") for view in named & views)
    return sorted(named.union(*behind) & event_tables().keys())


def own_rows(kind: str, tenant: str) -> str:
    """The statement that reads a tenant's own rows from the event database. What is older than tenants
    belongs to `local`."""
    whose, prefix = "tenant", literal(owned_id(tenant, ""))
    if tenant == LOCAL_TENANT:
        whose = f"coalesce(tenant, CASE WHEN request_id IS NOT NULL THEN {literal(LOCAL_TENANT)} END)"
    shown = ", ".join(
        f"replace({quoted(name)}, {prefix}, '') AS {quoted(name)}"
        if name in IDS and tenant != LOCAL_TENANT
        else quoted(name)
        for name, _ in event_tables()[kind].definition
    )
    return f"SELECT {shown} FROM {quoted(kind)} WHERE {whose} = {literal(tenant)}"
