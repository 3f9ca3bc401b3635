"""`choir report`: figures, charts and tables about a time of the mesh, on one page."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console


def report(
    out: Annotated[
        Path, typer.Option(metavar="FILE", dir_okay=False, help="Where to write the page.")
    ] = Path("report.html"),
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From when on: 30m, 2h, 7d ago, or a moment (ISO 8601, UTC).")
    ] = "1h",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Until when; without it until now.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one HTML page about a time of the mesh: figures, charts and tables; it loads nothing."""
    # The command line reaches into `analysis`, which is a client of the mesh itself.
    from analysis.report.collect import Findings, collect
    from analysis.report.page import page
    from analysis.report.span import time_span
    from services.cli.shell.written_file import check_writable
    from services.client.client import Choir

    span = time_span(since, until, datetime.now(UTC))

    check_writable(out, "out")

    async def look() -> Findings:
        async with Choir() as mesh:
            return await collect(mesh, span)

    text = page(asyncio.run(look()))
    out.write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"file": str(out), "bytes": len(text.encode())}))
        return
    console().print(f"written: {out} ({len(text.encode()) / 1024**2:.1f} MiB)")
