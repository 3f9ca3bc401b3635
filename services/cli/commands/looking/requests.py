"""`choir requests`: what was asked lately."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console, print_json


def requests(
    still_open: Annotated[bool, typer.Option("--open", help="Only those without a result yet.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that ended in an error.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show recent requests, the latest first: id, age, status, who was asked, how long it took.

    --open and --failed together show both. The metrics service knows of a request within a second.
    """
    from services.cli.sessions.recent import RecentRequests, recent_requests, requests_table
    from services.client.client import Choir
    from services.client.missing_service import check_metrics

    states = tuple(state for state, wanted in (("open", still_open), ("failed", failed)) if wanted)

    async def look() -> RecentRequests:
        async with Choir() as mesh:
            await check_metrics(mesh)
            return await recent_requests(mesh, states, limit)

    recent = asyncio.run(look())
    if as_json:
        print_json(recent)
    elif recent.requests:
        console().print(requests_table(recent, time.time()))
    else:
        console().print("no such requests" if states else "nothing has been asked yet; `choir ask` does")
