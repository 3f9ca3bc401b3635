"""`choir scores`: what the mesh has learnt of its agents."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console, print_json


def scores(
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it to a file, as one JSON document.")
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget all of it; shown for the last time.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what the mesh has learnt: accuracy by agent and topic, and how agents agree.

    The weights of the strategies come from it. --export FILE --reset keeps a copy and begins anew: nothing is
    forgotten before the file is written.
    """
    from schemas.replies import ScoresReply
    from services.cli.views.tables.scores_view import print_scores, write_scores
    from services.client.client import Choir

    async def look() -> ScoresReply:
        async with Choir() as mesh:
            if export is not None:
                write_scores(export, await mesh.scores())
            return await mesh.scores(reset=reset)

    known = asyncio.run(look())
    if as_json:
        print_json(known)
        return
    print_scores(console(), known)
    if export is not None:
        typer.echo(f"written to {export}")
