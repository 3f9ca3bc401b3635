"""Runs shipped queries: `python -m analysis.queries [NAME ...] [--parquet FOLDER] [--param NAME=VALUE]`.

Without a name it runs all that need no parameter. It asks the mesh (`choir.sql`), or Parquet files.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from duckdb import DuckDBPyConnection

from analysis.queries.offline import open_parquet
from schemas.errors import ChoirError, InvalidRequest
from schemas.requests.queries import RowColumn, Rows
from services.cli.views.tables.rows_view import as_table
from services.cli.views.terminal import console
from services.client.client import Choir
from services.client.queries.query_file import SHIPPED, QueryFile, given_values, read, shipped
from services.metrics.query.json_values import plain


def chosen(names: list[str]) -> dict[str, QueryFile]:
    """The queries of these names; without names all that can be run without parameters."""
    if names:
        return {name: shipped(name) for name in names}
    found = {name: read(path) for name, path in SHIPPED.items()}
    return {
        name: query for name, query in found.items() if all(p.default is not None for p in query.parameters)
    }


def from_parquet(folder: Path, queries: dict[str, QueryFile], given: dict[str, str]) -> dict[str, Rows]:
    """The rows of each query over the Parquet files of `folder`."""
    with open_parquet(folder) as connection:
        return {name: run_on(connection, query, given) for name, query in queries.items()}


def run_on(connection: DuckDBPyConnection, query: QueryFile, given: dict[str, str]) -> Rows:
    """The rows of one query, as `choir.sql` would give them."""
    connection.execute(query.statement, query.values(given) or None)
    columns = tuple(RowColumn(name=c[0], type=str(c[1])) for c in connection.description or [])
    rows = tuple(tuple(plain(value) for value in row) for row in connection.fetchall())
    return Rows(columns=columns, rows=rows, row_count=len(rows))


async def from_mesh(queries: dict[str, QueryFile], given: dict[str, str]) -> dict[str, Rows]:
    """The rows of each query, from the mesh that runs."""
    async with Choir() as mesh:
        return {name: await mesh.sql(query.statement, query.values(given)) for name, query in queries.items()}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which queries; all if there is none.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Ask these files instead of the mesh.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
) -> None:
    """Run shipped queries and print what they give."""
    out = console()
    try:
        queries, given = chosen(names or []), given_values(param or [])
        found = from_parquet(parquet, queries, given) if parquet else asyncio.run(from_mesh(queries, given))
    except ChoirError as error:
        typer.echo(f"{error.code}: {error.message}", err=True)
        raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error
    for name, rows in found.items():
        out.print(f"\n{name}: {queries[name].question}", style="bold")
        as_table(rows, out)


if __name__ == "__main__":
    typer.run(main)
