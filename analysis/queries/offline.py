"""The event database without a mesh: the Parquet files of a metrics service, with the same tables and views.

It opens nothing but the files, so it works on a copy, on another host, and while the service runs.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from schemas.errors import ConfigurationError
from services.metrics.settings import VIEWS_FOLDER
from services.metrics.store.tables import create, definitions, literal, quoted
from services.metrics.store.views import install

EMPTY = "empty"


def open_parquet(folder: Path) -> DuckDBPyConnection:
    """A connection whose tables are the files of `folder`: `<table>/<hour>.parquet`; no files, no rows.

    Raises ConfigurationError if there is not one file.
    """
    if not any(folder.glob("*/*.parquet")):
        raise ConfigurationError(
            f"there are no Parquet files in {folder}: is it the folder `parquet` of [metrics]?"
        )
    connection = duckdb.connect()
    connection.execute(f"CREATE SCHEMA {EMPTY}")
    for table, columns in definitions().items():
        # Files that are older than a column have none: the empty table brings every column.
        connection.execute(create(table, columns).replace("CREATE TABLE ", f"CREATE TABLE {EMPTY}."))
        parts = [f"SELECT * FROM {EMPTY}.{quoted(table)}"]
        if any((folder / table).glob("*.parquet")):
            files = literal(str(folder / table / "*.parquet"))
            parts.append(f"SELECT * FROM read_parquet({files}, union_by_name = true)")
        connection.execute(f"CREATE VIEW {quoted(table)} AS {' UNION ALL BY NAME '.join(parts)}")
    install(connection, VIEWS_FOLDER)
    return connection
