"""`choir sql`: ask the event database."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console

if TYPE_CHECKING:
    from schemas.requests.queries import Rows, Scalar
    from services.client.queries.query_file import QueryFile

Format = Literal["table", "csv", "json"]
FROM_STDIN = "-"


def sql(
    statement: Annotated[
        str | None, typer.Argument(help="A SELECT; - reads it from standard input. Without it: a prompt.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A query in a file, or the name of one that comes with Choir."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Fills $NAME; repeatable.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How the rows are printed.")] = "table",
    as_json: JsonFlag = False,
    max_rows: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many rows.")] = 10_000,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Cut off after so many seconds.")] = 30.0,
    queries: Annotated[
        bool, typer.Option("--queries", help="List the queries that come with Choir.")
    ] = False,
) -> None:
    """Ask the event database with SQL: every event is a row.

    `choir sql "SHOW TABLES"` lists the tables and views; `choir sql` alone opens a prompt.
    """
    from services.client.queries.query_file import parse

    if queries:
        _list_queries()
        return
    query = _from_file(file) if file is not None else parse(_typed(statement))
    if query.statement.strip():
        rows = asyncio.run(_ask(query, param or [], max_rows, timeout))
        _show(rows, "json" if as_json else output)
    elif statement is None and file is None and sys.stdin.isatty():
        from services.cli.sessions.sql_prompt import run_prompt

        asyncio.run(run_prompt(max_rows, timeout))
    else:
        from schemas.errors import InvalidRequest

        raise InvalidRequest(
            "statement: it is empty; `choir sql` alone, on a terminal, opens a prompt", field="statement"
        )


def _typed(statement: str | None) -> str:
    """The statement, from the argument or from standard input; empty if there is a terminal to ask at."""
    if statement == FROM_STDIN or (statement is None and not sys.stdin.isatty()):
        return sys.stdin.read()
    return statement or ""


def _from_file(path: Path) -> QueryFile:
    from services.client.queries.query_file import SHIPPED, read

    return read(path if path.is_file() else SHIPPED.get(path.name.removesuffix(".sql"), path))


async def _ask(query: QueryFile, given: list[str], max_rows: int, timeout_s: float) -> Rows:
    from services.client.client import Choir
    from services.client.queries.query_file import given_values

    values: dict[str, Scalar] = {**given_values(given)}
    if query.parameters:
        values = query.values(given_values(given))
    async with Choir() as mesh:
        return await mesh.sql(query.statement, values, max_rows=max_rows, timeout_s=timeout_s)


def _show(rows: Rows, output: Format) -> None:
    from services.cli.views.tables.rows_view import FORMATS, as_table, summary

    if output == "table":
        as_table(rows, console())
        return
    sys.stdout.write(FORMATS[output](rows))
    if rows.truncated and output == "csv":
        typer.echo(f"choir: {summary(rows)}", err=True)


def _list_queries() -> None:
    from services.cli.views.tables.overview_tables import table
    from services.client.queries.query_file import SHIPPED, read

    grid = table("query", "question", "parameters")
    for name, path in SHIPPED.items():
        query = read(path)
        grid.add_row(name, query.question, ", ".join(p.name for p in query.parameters))
    console().print(grid)
