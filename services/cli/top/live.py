"""Draws a snapshot again and again, in place: only changed characters change, so nothing flickers."""

from __future__ import annotations

import asyncio
import contextlib

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from schemas.errors import ChoirError
from services.cli.client import Choir
from services.cli.top.keys import until_quit
from services.cli.top.snapshot import Snapshot, look
from services.cli.top.view import screen

HINT = "q quits"


async def show(mesh: Choir, url: str, out: Console, interval_s: float, window_s: float) -> None:
    """Shows the mesh until somebody quits. A mesh that is away for a while is waited for, and said so."""
    snapshot = await look(mesh, url, window_s)
    with until_quit() as stop, Live(console=out, screen=True, auto_refresh=False) as live:
        stopping = asyncio.create_task(stop.wait())
        trouble = ""
        while not stop.is_set():
            live.update(_picture(snapshot, out, trouble), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await asyncio.shield(stopping)
            if stop.is_set():
                break
            looking = asyncio.create_task(look(mesh, url, window_s))
            await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                looking.cancel()
                break
            try:
                snapshot, trouble = looking.result(), ""
            except ChoirError as error:
                trouble = error.message
        stopping.cancel()


def _picture(snapshot: Snapshot, out: Console, trouble: str) -> Group:
    picture = screen(snapshot, out.width, out.height, HINT)
    if trouble:
        picture.renderables[-1] = Text(f"no news: {trouble}", "bold red", overflow="ellipsis", no_wrap=True)
    return picture
