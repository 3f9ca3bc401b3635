"""`choir nodes`: who is there, and who is to get nothing new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json, print_outcome

if TYPE_CHECKING:
    from schemas.nodes.cordons import CordonsReply, ManageCordons

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A host; with --instance an agent or a stage service.")
]
InstanceFlag = Annotated[bool, typer.Option("--instance", help="NAME is one instance, not a host.")]


def nodes(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Show all live service instances: state, load, CPU, memory, GPU, problems."""
    if context.invoked_subcommand is not None:
        return
    from schemas.replies import NodesReply
    from services.cli.views.tables.overview_tables import nodes_table, problem_lines
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


def cordon(name: NameArgument, instance: InstanceFlag = False, as_json: JsonFlag = False) -> None:
    """Give a host or an instance nothing new. What it has it finishes. This holds after a new start, too."""
    print_outcome(
        _change("cordon", name, instance), f"{name} gets nothing new; it finishes what it has", as_json
    )


def drain(
    name: NameArgument,
    instance: InstanceFlag = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long to wait until nothing is left there.")
    ] = "5m",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Cordon it, and wait until it has no work left. Others take its stages of pipelines."""
    from services.cli.sessions.drain_session import drained
    from services.client.moment import span_s

    wait_s = span_s(wait, "wait")
    reply = _change("drain", name, instance)
    if detach:
        print_outcome(reply, f"{name} is being drained; `choir nodes` shows how far it is", as_json)
        return
    asyncio.run(drained(name, instance=instance, wait_s=wait_s))
    print_outcome(reply, f"{name} is drained: it may be stopped", as_json)


def uncordon(name: NameArgument, instance: InstanceFlag = False, as_json: JsonFlag = False) -> None:
    """Let it in again."""
    print_outcome(_change("uncordon", name, instance), f"{name} gets work again", as_json)


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("cordon", cordon),
    ("drain", drain),
    ("uncordon", uncordon),
)


def build_nodes_app() -> typer.Typer:
    """`choir nodes` with its commands."""
    return command_group(COMMANDS, alone=nodes)


def _change(action: str, name: str, instance: bool) -> CordonsReply:
    """All cordons after the change."""
    from schemas.nodes.cordons import CordonsReply, ManageCordons
    from services.client.client import Choir
    from services.client.request_builder import build

    field = "instance" if instance else "host"
    request: ManageCordons = build(ManageCordons, {"action": action, field: name})

    async def ask() -> CordonsReply:
        async with Choir() as mesh:
            return CordonsReply(cordons=await mesh.cordons(request))

    return asyncio.run(ask())
