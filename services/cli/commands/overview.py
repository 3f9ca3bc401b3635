"""`choir nodes`, `choir models`, `choir status`: what the mesh looks like now."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from services.cli.views.terminal import console, print_json

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def nodes(as_json: JsonFlag = False) -> None:
    """Show all live service instances: state, load, CPU, memory, GPU, problems."""
    from schemas.replies import NodesReply
    from services.cli.views.overview_tables import nodes_table, problem_lines
    from services.client.client import Choir

    async def look() -> NodesReply:
        async with Choir() as mesh:
            return NodesReply(nodes=await mesh.nodes())

    reply = asyncio.run(look())
    if as_json:
        print_json(reply)
        return
    out = console()
    out.print(nodes_table(reply.nodes, out.width))
    for line in problem_lines(reply.nodes):
        out.print(line)


def models(as_json: JsonFlag = False) -> None:
    """Show all models that can be asked: agents, slots, context, speed, problems; and pipelines, with their
    stages, nodes and milliseconds for a token."""
    from rich.text import Text

    from schemas.replies import ModelsReply
    from services.cli.views.overview_tables import models_table, unusable_models
    from services.cli.views.pipeline_tables import pipeline_lines, pipelines_table
    from services.client.client import Choir

    async def look() -> tuple[ModelsReply, tuple[Text, ...]]:
        async with Choir() as mesh:
            reply = ModelsReply(models=await mesh.models(), pipelines=await mesh.pipelines())
            return reply, () if as_json else unusable_models(await mesh.nodes())

    reply, unusable = asyncio.run(look())
    if as_json:
        print_json(reply)
        return
    out = console()
    out.print(models_table(reply.models, out.width))
    for line in unusable:
        out.print(line)
    if reply.pipelines:
        out.print()
        out.print(pipelines_table(reply.pipelines))
    for line in pipeline_lines(reply.pipelines):
        out.print(line)


def status(as_json: JsonFlag = False) -> None:
    """Show the mesh at a glance."""
    from schemas.replies import StatusReply
    from services.cli.views.overview_tables import status_lines
    from services.client.client import Choir

    async def look() -> StatusReply:
        async with Choir() as mesh:
            return await mesh.status()

    reply = asyncio.run(look())
    if as_json:
        print_json(reply)
        return
    out = console()
    for line in status_lines(reply):
        out.print(line)
