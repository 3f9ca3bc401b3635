"""`choir invite`, `choir join`: other hosts and people come into the mesh by one line."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Literal

import typer

from services.cli.commands.overview import JsonFlag

TtlOption = Annotated[str, typer.Option("--ttl", metavar="TIME", help="It is good so long: 30m, 1h, 2d.")]
LEAST_NAME = "host"


def invite(
    kind: Annotated[
        Literal["host", "person"], typer.Argument(metavar="KIND", help="Who is to come: host or person.")
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
    as_json: JsonFlag = False,
) -> None:
    """Print one line that lets a host or a person join, once. It is a secret until it is used.

    On the host of the broker. There, `choir join LINE` is all that is typed.
    """
    import secrets

    from infra.members.operations import operations
    from services.client.invite_line import InviteLine
    from services.client.local_mesh import state_folder
    from services.client.moment import span_s

    called = name or f"{kind}-{secrets.token_hex(2)}"
    ttl_s = span_s(ttl, "ttl")

    async def work() -> InviteLine:
        async with operations(state_folder()) as mesh:
            if kind == "host":
                return await mesh.invite_host(called, ttl_s, all_services=all_services)
            return await mesh.invite_person(called, role, ttl_s)

    show_line(asyncio.run(work()), ttl, as_json)


def show_line(line: object, ttl: str, as_json: bool) -> None:
    """The line alone on stdout, and what to do with it beside."""
    from services.client.invite_line import InviteLine

    assert isinstance(line, InviteLine)
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
    from infra.members.joining import join as join_mesh
    from schemas.errors import ConfigurationError
    from services.client.invite_line import parse_line
    from services.client.local_mesh import state_folder
    from services.client.membership import config_folder

    if leave:
        _leave()
        return
    if line is None:
        raise ConfigurationError(
            "say the line of an invite: `choir join LINE`, or `choir join -` and paste it"
        )
    text = sys.stdin.read() if line == "-" else line
    member = asyncio.run(join_mesh(parse_line(text), state_folder(), config_folder()))
    if as_json:
        typer.echo(json.dumps({"kind": member.kind, "name": member.name, "url": member.url}))
    elif member.kind == "host":
        typer.echo(f"this host is {member.name} in the mesh at {member.url}")
        typer.echo("`choir up` runs its part: agents and stages of a choir.toml (`choir init` proposes one)")
    else:
        typer.echo(f"you are {member.name} in the mesh at {member.url}, and may {member.role}")
        typer.echo('choir ask "What is the capital of France?"')


def _leave() -> None:
    from infra.broker.keys import KeyRing
    from infra.broker.permissions import HOST
    from infra.host.credentials import KEYS_FOLDER
    from infra.members.joining import CLIENT
    from infra.members.joining import leave as leave_mesh
    from schemas.errors import ConfigurationError
    from services.client.local_mesh import running_mesh, state_folder
    from services.client.membership import config_folder

    if running_mesh() is not None:
        raise ConfigurationError("a mesh runs on this host: `choir down` first")
    state, config = state_folder(), config_folder()
    left = [
        leave_mesh(state, KeyRing(state / KEYS_FOLDER), HOST),
        leave_mesh(config, KeyRing(config), CLIENT),
    ]
    typer.echo("left" if any(left) else "no mesh was joined here")
