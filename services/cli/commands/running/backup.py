"""`choir backup`, `choir restore`: on the host of the broker."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.commands.running.host import ConfigOption
from services.cli.views.terminal import counted

if TYPE_CHECKING:
    from infra.broker.backup.manifest import Manifest


def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Copy the streams, the buckets and the event database of the mesh that runs on this host.

    The mesh goes on meanwhile. What was written is read again and tried out. Prompts and answers are in it,
    so only you may read it. Model files and choir.toml are no part of it.
    """
    from infra.broker.backup.backup import back_up
    from infra.settings import load_host_settings
    from schemas.errors import MeshUnreachable
    from services.client.finding.local_mesh import running_mesh, state_folder

    mesh = running_mesh()
    if mesh is None:
        raise MeshUnreachable("no mesh runs on this host: `choir up` first, then `choir backup` beside it")
    settings = load_host_settings(mesh.config)
    _show_done(
        "backed up into", folder, asyncio.run(back_up(mesh, settings, state_folder(), folder)), as_json
    )


def restore(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="What `choir backup` has written.")
    ] = None,
    is_beside: Annotated[
        bool,
        typer.Option("--beside", help="Only run this host's broker, while another of its cluster restores."),
    ] = False,
    config: ConfigOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a mesh of a backup: the next `choir up` runs it. The mesh of this host must not run.

    Nothing is overwritten. Requests whose time is over end in `deadline_exceeded` when the mesh starts.
    Into a cluster it is restored on one host, with `--beside` on the others meanwhile.
    """
    from infra.broker.backup.restore import restore as restore_backup
    from infra.settings import load_host_settings
    from schemas.errors import ConfigurationError
    from services.client.finding.local_mesh import state_folder

    if is_beside:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_stay_beside(config))
        return
    if folder is None:
        raise ConfigurationError("say where the backup is: `choir restore DIR`")
    manifest = asyncio.run(restore_backup(load_host_settings(config), state_folder(), folder))
    _show_done("restored from", folder, manifest, as_json)


async def _stay_beside(config: Path | None) -> None:
    from infra.broker.backup.restore import beside
    from infra.settings import load_host_settings
    from services.client.finding.local_mesh import state_folder

    async with beside(load_host_settings(config), state_folder()):
        typer.echo("the broker of this host runs, and nothing else; Ctrl-C ends it", err=True)
        await asyncio.Event().wait()


def _show_done(done: str, folder: Path, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2, exclude_none=True))
        return
    messages = sum(entry.state["messages"] for entry in manifest.streams)
    size_bytes = sum(entry.size_bytes for entry in manifest.files)
    database = "and the event database" if manifest.database else "(this host keeps no event database)"
    typer.echo(
        f"{done} {folder}: {counted(messages, 'message')} in {counted(len(manifest.streams), 'stream')} "
        f"{database}, {size_bytes / 1e6:,.1f} MB"
    )
