"""Draws a snapshot again and again, in place: only changed characters change, so nothing flickers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from schemas.errors import ChoirError
from services.chassis.process.cancelling import ended
from services.cli.top.keys import keyboard
from services.cli.top.panes import PANES, Look
from services.cli.top.snapshot import Snapshot, look
from services.cli.top.view import screen
from services.client.client import Choir

KEPT_LOOKS = 200
"""Wider than any screen that has room for them."""


async def show(mesh: Choir, url: str, out: Console, interval_s: float, window_s: float) -> None:
    """Shows the mesh until somebody quits. A mesh that is away for a while is waited for, and said so."""
    snapshot = await look(mesh, url, window_s)
    shown, trouble = Look(), ""
    trail = deque(_rate(snapshot), KEPT_LOOKS)
    with keyboard() as keys, Live(console=out, screen=True, auto_refresh=False) as live:
        looking: asyncio.Task[Snapshot] = asyncio.create_task(_later(mesh, url, window_s, interval_s))
        try:
            while not keys.stop.is_set():
                live.update(_picture(snapshot, out, trouble, shown, tuple(trail)), refresh=True)
                touched = asyncio.create_task(keys.touched.wait())
                await asyncio.wait({looking, touched}, return_when=asyncio.FIRST_COMPLETED)
                touched.cancel()
                for key in keys.taken():
                    shown = shown.after(key)
                if not looking.done():
                    continue
                try:
                    snapshot, trouble = looking.result(), ""
                    trail.extend(_rate(snapshot))
                except ChoirError as error:
                    trouble = error.message
                looking = asyncio.create_task(_later(mesh, url, window_s, interval_s))
        finally:
            await ended([looking])


async def _later(mesh: Choir, url: str, window_s: float, pause_s: float) -> Snapshot:
    """The next snapshot, after a pause."""
    await asyncio.sleep(pause_s)
    return await look(mesh, url, window_s)


def _rate(snapshot: Snapshot) -> tuple[float, ...]:
    """Requests per second at a look; nothing where nobody knows."""
    return () if snapshot.rates is None else (snapshot.rates.requests_per_s,)


def _hint(shown: Look) -> str:
    """Which keys there are."""
    panes = "  ".join(f"{pane.key} {pane.name}" for pane in PANES)
    by = "" if shown == Look(shown.pane) else f": {shown.sorted_by}"
    return f"q quits  {panes}  r reverse  s sort{by}"


def _picture(snapshot: Snapshot, out: Console, trouble: str, shown: Look, trail: Sequence[float]) -> Group:
    picture = screen(snapshot, out.width, out.height, _hint(shown), shown, trail)
    if trouble:
        picture.renderables[-1] = Text(f"no news: {trouble}", "bold red", overflow="ellipsis", no_wrap=True)
    return picture
