"""The demo from beginning to end: on a terminal live, elsewhere in plain lines, or as one document."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live

from infra.host.demo_mesh import demo_mesh
from services.chassis.process.cancelling import check_cancelled
from services.cli.demo.board import NEXT, board, print_turn
from services.cli.demo.tour import Turn, tour
from services.client.client import Choir

REFRESH_PER_S = 12
STARTING = "starting a broker, a router, an aggregator and the agents ..."


@asynccontextmanager
async def _stage(config: Path | None) -> AsyncIterator[tuple[Choir, tuple[str, ...]]]:
    """The running mesh and the names of its models."""
    with _ended_by_sigterm():
        async with demo_mesh(config) as supervisor:
            for problem in supervisor.problems:
                typer.echo(f"choir: {problem}", err=True)
            async with Choir(supervisor.url) as mesh:
                models = await mesh.models()
                check_cancelled()
                yield mesh, tuple(model.name for model in models)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: everything is stopped and removed."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def collect(config: Path | None) -> dict[str, object]:
    """The demo as one document."""
    turns: list[Turn] = []
    async with _stage(config) as (mesh, agents):
        async for turn in tour(mesh, agents):
            if turn.latency_ms is not None:
                turns.append(turn)
    return {"agents": list(agents), "questions": [turn.as_document() for turn in turns]}


async def show(config: Path | None, out: Console) -> None:
    """The demo for people."""
    starting = out.status(STARTING)
    if out.is_terminal:
        starting.start()
    else:
        out.print(STARTING)
    try:
        async with _stage(config) as (mesh, agents):
            starting.stop()
            out.print(f"a mesh of {len(agents)} models: {', '.join(agents)}\n")
            if out.is_terminal:
                await _live(mesh, agents, out)
            else:
                await _plain(mesh, agents, out)
            starting.update("stopping ...")
    finally:
        starting.stop()
    out.print(f"\n{NEXT}", end="")


async def _live(mesh: Choir, agents: tuple[str, ...], out: Console) -> None:
    turns: list[Turn] = []
    with Live(console=out, refresh_per_second=REFRESH_PER_S) as live:
        async for turn in tour(mesh, agents):
            if not turns or turns[-1] is not turn:
                turns.append(turn)
            live.update(board(agents, turns, out.width))


async def _plain(mesh: Choir, agents: tuple[str, ...], out: Console) -> None:
    async for turn in tour(mesh, agents):
        if turn.latency_ms is not None:
            print_turn(out, turn)
