"""`choir up`, `choir down`: this host's part of the mesh."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.views.terminal import console

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Which choir.toml; without it the one in this folder, or else the demo's.",
    ),
]
LogFormat = Annotated[
    Literal["console", "json"] | None,
    typer.Option(help="Show every line here, for people or for machines."),
]

OtlpEndpoint = Annotated[
    str | None,
    typer.Option(
        "--otlp", metavar="URL", help="Send spans to an OpenTelemetry collector too (http://host:4318)."
    ),
]

FORMAT_VARIABLE = "CHOIR_LOGGING__FORMAT"
ShardOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--shard", metavar="MODEL=N", help="Run MODEL in N stages on this host: a name, demo:NAME or a file."
    ),
]
Standbys = Annotated[
    int, typer.Option(min=0, max=32, help="With --shard: instances that take the place of one that dies.")
]

VerboseFlag = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every line of every service here, too.")
]
UpJsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document when the mesh is ready; it runs on.")
]

ListenOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where the broker listens, with or without :PORT: `0.0.0.0` lets other hosts join, over TLS.",
    ),
]

BrokerOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Start no broker: use this one, which `choir broker config` has told of us."
    ),
]

InviteFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="CHOIR_INVITE_FILE",
        help="Join first by the line of an invite in this file, unless that has been done.",
    ),
]

OTLP_VARIABLE = "CHOIR_OTLP__ENDPOINT"
EMBEDDED_VARIABLE, URL_VARIABLE = "CHOIR_BROKER__EMBEDDED", "CHOIR_MESH__URL"
NKEY_VARIABLE = "CHOIR_MESH__NKEY"
HOST_VARIABLE, PORT_VARIABLE = "CHOIR_BROKER__HOST", "CHOIR_BROKER__PORT"


def up(
    config: ConfigOption = None,
    listen: ListenOption = None,
    broker: BrokerOption = None,
    invite_file: InviteFile = None,
    log_format: LogFormat = None,
    otlp: OtlpEndpoint = None,
    shard: ShardOptions = None,
    standbys: Standbys = 1,
    verbose: VerboseFlag = False,
    as_json: UpJsonFlag = False,
) -> None:
    """Run this host's part of the mesh in the foreground, until Ctrl-C or `choir down`.

    Warnings and errors are shown here; all that services say is in a log file, which is named at the start.
    """
    # Every service reads these, as it would from choir.toml.
    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format
    if otlp is not None:
        os.environ[OTLP_VARIABLE] = otlp
    if listen is not None:
        _listen_at(listen)
    if broker is not None:
        _use_broker(broker, config)
    if invite_file is not None:
        _join_by(invite_file)

    from infra.host.parts.shards import ShardOption, with_shards
    from infra.settings import load_host_settings
    from services.cli.up.log_file import LogFile
    from services.cli.up.own_log import forward_own_log
    from services.cli.up.screen import Screen
    from services.cli.up.session import UpSession
    from services.client.finding.local_mesh import state_folder

    shards = [ShardOption.parse(text) for text in shard or ()]
    settings = with_shards(load_host_settings(config), shards, standbys)
    log = LogFile(state_folder())
    every_line = verbose or log_format is not None
    screen = Screen(
        "json" if settings.logging.format == "json" else "verbose" if every_line else "people", log
    )
    forward_own_log(screen.forward)
    try:
        asyncio.run(UpSession(settings, screen, log, as_json=as_json).run())
    finally:
        log.close()


def _use_broker(url: str, config: Path | None) -> None:
    """A broker that runs already, at an address or several: as whom choir.toml says, else by our own key."""
    from infra.host.credentials import Credentials
    from infra.settings import load_host_settings
    from services.client.finding.local_mesh import state_folder

    os.environ[EMBEDDED_VARIABLE], os.environ[URL_VARIABLE] = "false", url
    key, mesh = Credentials(state_folder()).operator, load_host_settings(config).mesh
    if mesh.user is None and mesh.nkey is None and key.is_file():
        os.environ[NKEY_VARIABLE] = str(key)


def _join_by(invite_file: Path) -> None:
    from infra.members.joining import join_once, text_of
    from services.client.finding.local_mesh import state_folder
    from services.client.finding.membership import config_folder

    asyncio.run(join_once(text_of(invite_file), state_folder(), config_folder()))


def _listen_at(said: str) -> None:
    """`192.168.1.10`, `[::]:4222`, `0.0.0.0:4222`: settings of `[broker]`, as choir.toml would have them."""
    from schemas.errors import ConfigurationError
    from services.chassis.nats.connecting.address import host_and_port

    try:
        host, port = host_and_port(said)
    except ValueError as error:
        raise ConfigurationError(
            f"--listen {said}: {error}; say an address of this host, such as 0.0.0.0 (all of them) or "
            "192.168.1.10:4222"
        ) from error
    os.environ[HOST_VARIABLE] = host
    if port is not None:
        os.environ[PORT_VARIABLE] = str(port)


def down(as_json: JsonFlag = False) -> None:
    """Stop the mesh that `choir up` runs on this host."""
    from infra.host.state import STOP_DEADLINE_S, stop_mesh
    from schemas.errors import InternalError
    from services.chassis.nats.connecting.address import without_password
    from services.client.finding.local_mesh import running_mesh

    def tell(line: str, **facts: object) -> None:
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            console().print(line)

    mesh = running_mesh()
    if mesh is None:
        tell("no mesh runs on this host", stopped=False)
        return
    url = without_password(mesh.url)
    if not asyncio.run(stop_mesh(mesh)):
        raise InternalError(
            f"the mesh at {url} (process {mesh.pid}) has not stopped within {STOP_DEADLINE_S:g} s; "
            "ask again, or kill that process"
        )
    tell(f"the mesh at {url} has stopped", stopped=True, url=url, pid=mesh.pid)
