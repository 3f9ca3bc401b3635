"""`choir models`, `choir ps`, `choir status`: what the mesh looks like now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.views.terminal import console, print_json

if TYPE_CHECKING:
    from schemas.nodes.lease import NodeLease
    from services.client.client import Choir

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def models(as_json: JsonFlag = False) -> None:
    """Show all models that can be asked: agents, slots, context, speed, problems; pipelines, with their
    stages, nodes and milliseconds for a token; ensembles with a name; and why there are too few copies of a
    model of the store."""
    from rich.text import Text

    from schemas.errors import NotPermitted
    from schemas.replies import ModelsReply
    from services.cli.views.tables.ensembles_table import ensembles_table
    from services.cli.views.tables.overview_tables import models_table, unusable_models
    from services.cli.views.tables.pipeline_tables import pipeline_lines, pipelines_table
    from services.client.client import Choir

    async def look() -> tuple[ModelsReply, tuple[Text, ...], tuple[str, ...]]:
        async with Choir() as mesh:
            reply = await mesh.offered()
            if as_json:
                return reply, (), ()
            try:
                nodes = await mesh.nodes()
                return reply, unusable_models(nodes), await _missing_copies(mesh, nodes)
            except NotPermitted:  # whoever may only ask is told what can be asked
                return reply, (), ()

    reply, unusable, missing = asyncio.run(look())
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
    if reply.ensembles:
        out.print()
        out.print(ensembles_table(reply.ensembles))
    for words in missing:
        out.print(words)


async def _missing_copies(mesh: Choir, nodes: Iterable[NodeLease]) -> tuple[str, ...]:
    """What is said of models of the store that too few hosts have; nothing where no store answers."""
    from schemas.errors import MeshUnreachable
    from schemas.nodes.model_store import ManageStore
    from services.cli.views.tables.store_view import missing_lines

    if not any(node.store is not None for node in nodes):
        return ()
    try:
        kept = await mesh.store(ManageStore())
    except MeshUnreachable:
        return ()
    return tuple(line for entry in kept.models for line in missing_lines(entry))


def ps(as_json: JsonFlag = False) -> None:
    """Show the models that are in memory, and those that are loaded when they are asked for: where, what they
    take, how busy they are, and until when they stay."""
    from schemas.replies import NodesReply
    from services.cli.views.tables.loaded_models import budget_lines, loaded_table
    from services.client.client import Choir

    async def look() -> NodesReply:
        async with Choir() as mesh:
            return NodesReply(nodes=await mesh.nodes())

    reply = asyncio.run(look())
    if as_json:
        agents = tuple(node for node in reply.nodes if node.models)
        print_json(reply.model_copy(update={"nodes": agents}))
        return
    out = console()
    out.print(loaded_table(reply.nodes))
    for line in budget_lines(reply.nodes):
        out.print(line)


def status(as_json: JsonFlag = False) -> None:
    """Show the mesh at a glance."""
    from schemas.replies import StatusReply
    from services.cli.views.tables.overview_tables import status_lines
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
