"""The command line: which commands there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from services.cli.commands.ask import ask
from services.cli.commands.batch import batch
from services.cli.commands.chat import chat
from services.cli.commands.demo import demo
from services.cli.commands.eval import evaluate
from services.cli.commands.export import export
from services.cli.commands.host import down, up
from services.cli.commands.init import init
from services.cli.commands.matrix import matrix
from services.cli.commands.overview import models, nodes, status
from services.cli.commands.report import report
from services.cli.commands.scores import scores
from services.cli.commands.shard import shard
from services.cli.commands.sql import sql
from services.cli.commands.top import top
from services.cli.commands.trace import trace
from services.cli.commands.validate import validate
from services.cli.commands.worker import build_worker_app

ASKING = "Ask"
RUNNING = "Run"
MEASURING = "Measure"
LOOKING = "Look"

COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("ask", ask, ASKING),
    ("chat", chat, ASKING),
    ("batch", batch, ASKING),
    ("demo", demo, RUNNING),
    ("init", init, RUNNING),
    ("up", up, RUNNING),
    ("down", down, RUNNING),
    ("shard", shard, RUNNING),
    ("validate", validate, RUNNING),
    ("eval", evaluate, MEASURING),
    ("matrix", matrix, MEASURING),
    ("nodes", nodes, LOOKING),
    ("models", models, LOOKING),
    ("status", status, LOOKING),
    ("scores", scores, LOOKING),
    ("sql", sql, LOOKING),
    ("export", export, LOOKING),
    ("top", top, LOOKING),
    ("report", report, LOOKING),
    ("trace", trace, LOOKING),
)
"""Every command: its name, the function, and the heading it stands under in `choir --help`."""


def choir(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Many local language models that answer as one."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"choir {version_of('choir')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def build_app() -> typer.Typer:
    """The application with all commands."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(choir)
    for name, function, heading in COMMANDS:
        app.command(name, rich_help_panel=heading)(function)
    app.add_typer(build_worker_app(), name="worker", rich_help_panel=RUNNING)
    return app
