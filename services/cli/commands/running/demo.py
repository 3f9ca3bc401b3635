"""`choir demo`: a whole mesh for a minute."""

from __future__ import annotations

import asyncio
import json

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.commands.running.host import ConfigOption
from services.cli.views.terminal import console


def demo(config: ConfigOption = None, as_json: JsonFlag = False) -> None:
    """Start a mesh of four small models, ask it a few questions, and stop it again."""
    from services.cli.demo.show import collect, show

    if as_json:
        typer.echo(json.dumps(asyncio.run(collect(config)), ensure_ascii=False, indent=2))
    else:
        asyncio.run(show(config, console()))
