"""`choir init`: a first choir.toml."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag


def init(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path("choir.toml"),
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Look on this host, too, or at this one port of it; repeatable."
        ),
    ] = None,
    gguf: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A model file to serve; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write it without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Look for Ollama, LM Studio, Exo and llama-server on this host, and propose a choir.toml.

    Without a terminal, or with --json, nothing is written unless --yes says so: the proposal is printed.
    """
    from schemas.errors import InvalidRequest
    from services.cli.setup.probe import Place, look_around
    from services.cli.setup.proposal import proposal
    from services.cli.views.terminal import counted

    files = [path.absolute() for path in gguf or ()]
    for path in files:
        if not path.is_file():
            raise InvalidRequest(f"{path} is not a file", field="gguf")
    if output.exists() and not force:
        raise InvalidRequest(f"{output} is there already: --force writes over it", field="output")
    if not output.absolute().parent.is_dir():
        raise InvalidRequest(f"{output}: there is no folder {output.absolute().parent}", field="output")
    found = asyncio.run(look_around([Place("127.0.0.1"), *map(Place.parse, host or ())]))
    for one in found:
        what = one.problem or f"{counted(len(one.models), 'model')}: {', '.join(one.models)}"
        typer.echo(f"{one.kind} at {one.url}: {what}", err=True)
    if not found:
        typer.echo("no server of models answers here", err=True)
    text = proposal(found, files)
    if as_json:
        if yes:
            _write(output, text)
        servers = [dataclasses.asdict(one) for one in found]
        typer.echo(json.dumps({"servers": servers, "config": text, "written": str(output) if yes else None}))
        return
    typer.echo(text)
    if yes or (sys.stdin.isatty() and typer.confirm(f"write this to {output}?", default=True, err=True)):
        _write(output, text)


def _write(output: Path, text: str) -> None:
    """Writes the file, and makes sure that `choir up` would take it."""
    from infra.settings import load_host_settings
    from schemas.errors import ConfigurationError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}", field="output") from error
    load_host_settings(output)
    typer.echo(f"written: {output}; now `choir validate`, then `choir up`", err=True)
