"""`choir invite`, `choir join`: other hosts, brokers and people come into the mesh by one line."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.cli.commands.looking.overview import JsonFlag

if TYPE_CHECKING:
    from services.client.finding.invite_line import InviteLine

TtlOption = Annotated[str, typer.Option("--ttl", metavar="TIME", help="It is good so long: 30m, 1h, 2d.")]


def invite(
    kind: Annotated[
        Literal["host", "person", "broker"],
        typer.Argument(metavar="KIND", help="Who is to come: host, person, or a broker of the cluster."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What they are called in the mesh: a-z, 0-9, - and _.")
    ] = None,
    role: Annotated[
        Literal["ask", "observe", "operate"], typer.Option("--role", help="What a person may do.")
    ] = "ask",
    ttl: TtlOption = "1h",
    all_services: Annotated[
        bool, typer.Option("--all-services", help="A host may run routers and all else, not only models.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65_535, help="Where a broker is waited for: 1000 above this one's."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print one line that lets a host or a person join, once. It is a secret until it is used.

    On the host of the broker, or anywhere else by an operator's credentials. Where the line goes to,
    `choir join LINE` is all that is typed. For a broker this is typed on a host that `[broker] cluster`
    names, once for each of the others, and waits until the line was used.
    """
    if kind == "broker":
        _invite_broker(ttl, port, as_json)
        return
    import secrets

    from services.client.moment import span_s

    called = name or f"{kind}-{secrets.token_hex(2)}"
    ttl_s = span_s(ttl, "ttl")
    line = make_line(kind=kind, name=called, role=role, ttl_s=ttl_s, all_services=all_services)
    show_line(line, ttl, as_json)


def make_line(**fields: object) -> InviteLine:
    """A line, made beside the broker as its operator, and anywhere else as a client that may operate.

    `fields` are fields of MakeInvite but the key.
    """
    from infra.members.operations import operations, runs_broker
    from services.client.client import Choir
    from services.client.finding.inviting import invite_from_elsewhere
    from services.client.finding.local_mesh import state_folder

    async def work() -> InviteLine:
        if runs_broker(state_folder()):
            async with operations(state_folder()) as mesh:
                return await mesh.invite(**fields)
        async with Choir() as choir:
            return await invite_from_elsewhere(choir, **fields)

    return asyncio.run(work())


def _invite_broker(ttl: str, port: int | None, as_json: bool) -> None:
    """Prints the line, and waits until it was used: what it opens is handed over by this process."""
    from infra.members.handover import handing_over
    from infra.settings import load_host_settings
    from services.client.finding.local_mesh import running_mesh, state_folder
    from services.client.moment import span_s

    mesh, ttl_s = running_mesh(), span_s(ttl, "ttl")
    settings = load_host_settings(None if mesh is None else mesh.config)

    async def work() -> str:
        async with handing_over(settings, state_folder(), port) as handover:
            line = handover.line
            if as_json:
                document = {"kind": "broker", "addresses": line.addresses, "line": line.text}
                typer.echo(json.dumps(document))
            else:
                typer.echo(line.text)
            typer.echo(
                f"for one broker of the cluster, good once within {ttl} and as long as this waits: "
                "`choir join -` on its host, and paste it",
                err=True,
            )
            return await handover.taken(ttl_s)

    typer.echo(f"{asyncio.run(work())} has it; type this again for another broker", err=True)


def show_line(line: InviteLine, ttl: str, as_json: bool) -> None:
    """The line alone on stdout, and what to do with it beside."""
    if as_json:
        document = {"kind": line.kind, "name": line.name, "addresses": line.addresses, "line": line.text}
        typer.echo(json.dumps(document))
        return
    typer.echo(line.text)
    then = "`choir join LINE` there, then `choir up`" if line.kind == "host" else "`choir join LINE` there"
    typer.echo(f"for the {line.kind} {line.name}, good once within {ttl}: {then}", err=True)


def join(
    line: Annotated[
        str | None,
        typer.Argument(metavar="LINE", help="What `choir invite` has printed; - reads it from stdin."),
    ] = None,
    leave: Annotated[
        bool, typer.Option("--leave", help="Forget the meshes that this host and this user have joined.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Join a mesh by the line of an invite: this host, whose `choir up` is a part of it then, or you."""
    from infra.members.handover import is_broker_line
    from infra.members.joining import join as join_mesh
    from schemas.errors import ConfigurationError
    from services.client.finding.invite_line import parse_line
    from services.client.finding.local_mesh import state_folder
    from services.client.finding.membership import config_folder

    if leave:
        _leave()
        return
    if line is None:
        raise ConfigurationError(
            "say the line of an invite: `choir join LINE`, or `choir join -` and paste it"
        )
    text = sys.stdin.read() if line == "-" else line
    if is_broker_line(text):
        _join_brokers(text, as_json)
        return
    member = asyncio.run(join_mesh(parse_line(text), state_folder(), config_folder()))
    if as_json:
        typer.echo(json.dumps({"kind": member.kind, "name": member.name, "url": member.url}))
    elif member.kind == "host":
        typer.echo(f"this host is {member.name} in the mesh at {member.url}")
        typer.echo("`choir up` runs its part: a choir.toml (`choir init` proposes one), or the demo's models")
    else:
        typer.echo(f"you are {member.name} in the mesh at {member.url}, and may {member.role}")
        typer.echo('choir ask "What is the capital of France?"')


def _join_brokers(text: str, as_json: bool) -> None:
    from infra.members.handover import parse_broker_line, take_over
    from services.client.finding.local_mesh import state_folder

    shared = asyncio.run(take_over(parse_broker_line(text), state_folder()))
    if as_json:
        typer.echo(json.dumps({"kind": "broker", "servers": shared.servers}))
        return
    typer.echo(f"this host runs one of the brokers {', '.join(shared.servers)}: `choir up` starts it")


def _leave() -> None:
    from infra.broker.access.keys import KeyRing
    from infra.broker.access.permissions import HOST
    from infra.host.credentials import KEYS_FOLDER
    from infra.members.brokers import leave_brokers
    from infra.members.joining import CLIENT
    from infra.members.joining import leave as leave_mesh
    from schemas.errors import ConfigurationError
    from services.client.finding.local_mesh import running_mesh, state_folder
    from services.client.finding.membership import config_folder

    if running_mesh() is not None:
        raise ConfigurationError("a mesh runs on this host: `choir down` first")
    state, config = state_folder(), config_folder()
    left = [
        leave_mesh(state, KeyRing(state / KEYS_FOLDER), HOST),
        leave_mesh(config, KeyRing(config), CLIENT),
        leave_brokers(state),
    ]
    typer.echo("left" if any(left) else "no mesh was joined here")
