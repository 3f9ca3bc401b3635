"""`choir trace`: the waterfall of one request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.asking.one_request import LastFlag, RequestId
from services.cli.views.terminal import console, print_json


def trace(
    request_id: RequestId = None,
    last: LastFlag = False,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write the picture to a PNG file too.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Show where the time of one request went: each hop and computation as a bar, the gaps named."""
    from services.cli.sessions.last_request import chosen
    from services.cli.shell.written_file import check_writable
    from services.cli.views.trace_view import view
    from services.client.client import Choir
    from services.client.queries.trace.document import document
    from services.client.queries.trace.look_up import look_up
    from services.client.queries.trace.pieces import Waterfall

    if png is not None:
        check_writable(png, "png")

    which = chosen(request_id, last)

    async def look() -> Waterfall:
        async with Choir() as mesh:
            return await look_up(mesh, which)

    fall = asyncio.run(look())
    if png is not None:
        # The command line draws with the same charts as the report.
        from analysis.charts.drawing.render import png_image, specification
        from analysis.charts.mesh.request_timeline import request_timeline

        shown = document(fall)
        chart = request_timeline([piece.model_dump() for piece in shown.pieces], f"request {fall.request_id}")
        png.write_bytes(png_image(specification(chart)))
    if as_json:
        print_json(document(fall))
        return
    out = console()
    out.print(view(fall, out.width))
