"""`choir export`: the per-peer metrics log as a file."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console


def export(
    out: Annotated[str, typer.Option("--out", metavar="PATH", help="The folder that it is written to.")],
    output: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="CSV, or one JSON object per line.")
    ] = "csv",
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Only what ended from then on: 30m, 2h, 7d ago, or a moment (ISO 8601, UTC)."
        ),
    ] = "1970-01-01",
    until: Annotated[str, typer.Option(metavar="TIME", help="Only what ended before then.")] = "9999-12-31",
    as_json: JsonFlag = False,
) -> None:
    """Write what every peer did for every task: model, durations, tokens and their rate, network latency."""
    from services.cli.sessions.peer_export import export_peers
    from services.cli.shell.written_file import named_folder
    from services.client.client import Choir
    from services.client.moment import as_sql, moment

    folder = named_folder(out, "out")
    now = datetime.now(UTC)
    begin = as_sql(moment(since, now, "since"))
    end = as_sql(moment(until, now, "until"))

    async def run() -> tuple[Path, int]:
        async with Choir() as mesh:
            return await export_peers(mesh, folder, output, begin, end)

    path, count = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps({"file": str(path), "tasks": count}))
    else:
        console().print(f"{count:,} tasks written to {path}")
