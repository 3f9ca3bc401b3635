"""`choir up`, `choir down`: this host's part of the mesh."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli.terminal import console

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
    typer.Option(help="One line per event, for people or for machines; goes to standard error."),
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

OTLP_VARIABLE = "CHOIR_OTLP__ENDPOINT"


def up(
    config: ConfigOption = None,
    log_format: LogFormat = None,
    otlp: OtlpEndpoint = None,
    shard: ShardOptions = None,
    standbys: Standbys = 1,
) -> None:
    """Run this host's part of the mesh in the foreground, until Ctrl-C or `choir down`."""
    # Every service reads these, as it would from choir.toml.
    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format
    if otlp is not None:
        os.environ[OTLP_VARIABLE] = otlp

    from infra.settings import load_host_settings
    from infra.shards import ShardOption, with_shards
    from infra.supervisor import Supervisor
    from services.cli.log_lines import forward_for

    shards = [ShardOption.parse(text) for text in shard or ()]

    async def run() -> None:
        settings = with_shards(load_host_settings(config), shards, standbys)
        supervisor = Supervisor(settings, forward=forward_for(settings.logging.format))
        await supervisor.start()
        await supervisor.run_until_stopped()

    asyncio.run(run())


def down() -> None:
    """Stop the mesh that `choir up` runs on this host."""
    from infra.state import STOP_DEADLINE_S, running_mesh, stop_mesh
    from schemas.errors import InternalError
    from services.chassis.address import without_password

    out = console()
    mesh = running_mesh()
    if mesh is None:
        out.print("no mesh runs on this host")
        return
    url = without_password(mesh.url)
    if not asyncio.run(stop_mesh(mesh)):
        raise InternalError(
            f"the mesh at {url} (process {mesh.pid}) has not stopped within {STOP_DEADLINE_S:g} s; "
            "ask again, or kill that process"
        )
    out.print(f"the mesh at {url} has stopped")
