"""`choir broker`: what a NATS that runs already has to be told."""

from __future__ import annotations

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.commands.running.host import ConfigOption
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import print_text


def config(config: ConfigOption = None, as_json: JsonFlag = False) -> None:
    """Print what a nats-server is to include.

    Accounts, users and permissions; keys that are missing are made.

    The file holds public keys only. On several servers of a cluster it is the same.
    """
    from infra.host.foreign_broker import configuration
    from infra.settings import load_host_settings
    from services.client.finding.local_mesh import state_folder

    print_text("configuration", configuration(load_host_settings(config), state_folder()), as_json)


def build_broker_app() -> typer.Typer:
    """`choir broker` with its commands."""
    return command_group((("config", config),), "A NATS that runs already.")
