"""`choir top`: the mesh, live."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from services.cli.views.terminal import console, print_json


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once, print, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else; looks once.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60.0, metavar="SECONDS", help="How often to look.")
    ] = 1.0,
    window: Annotated[
        float, typer.Option(min=1.0, max=3600.0, metavar="SECONDS", help="What rates are averages of.")
    ] = 10.0,
) -> None:
    """Show nodes, slots, queue, requests and tokens per second, latency and errors, live; q quits."""
    from services.chassis.nats.connecting.address import without_password
    from services.cli.top.live import show
    from services.cli.top.snapshot import Snapshot, look
    from services.cli.top.view import all_panes
    from services.client.client import Choir
    from services.client.finding.mesh_url import find_mesh

    url = without_password(find_mesh().url)
    out = console()

    async def look_once() -> Snapshot:
        async with Choir() as mesh:
            return await look(mesh, url, window)

    async def stay() -> None:
        async with Choir() as mesh:
            await show(mesh, url, out, interval, window)

    if once or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        snapshot = asyncio.run(look_once())
        if as_json:
            print_json(snapshot)
        else:
            out.print(all_panes(snapshot, out.width))
        return
    asyncio.run(stay())
