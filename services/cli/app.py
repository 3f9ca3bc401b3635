"""The table of commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from services.cli.shell.command_group import COMPLETION_VARIABLE, Entry, LazyGroup

ASKING = "Ask"
RUNNING = "Run"
MEASURING = "Measure"
LOOKING = "Look"

COMMANDS: tuple[Entry, ...] = (
    Entry("ask", "asking.ask:ask", ASKING, "Ask one model, a chain, or an ensemble that decides together."),
    Entry("chat", "asking.chat:chat", ASKING, "Talk with one model, or with all of them."),
    Entry("batch", "asking.batch:batch", ASKING, "Ask every prompt about every document, with all models."),
    Entry(
        "fetch", "asking.one_request:fetch", ASKING,
        "The answer to a request that was asked before, by its id.",
    ),
    Entry("verify", "asking.verify:verify", ASKING, "Decide kept results again, by their receipts."),
    Entry("cancel", "asking.one_request:cancel", ASKING, "Give up a request."),
    Entry("feedback", "asking.one_request:feedback", ASKING, "Say what was right, so that weights learn."),
    Entry(
        "demo", "running.demo:demo", RUNNING,
        "A whole mesh for a minute: four small models, some questions.",
    ),
    Entry("init", "running.init:init", RUNNING, "Look for servers of models here, and propose a choir.toml."),
    Entry(
        "up", "running.host:up", RUNNING,
        "Run this host's part of the mesh, until Ctrl-C or `choir down`.",
    ),
    Entry("down", "running.host:down", RUNNING, "Stop the mesh that `choir up` runs on this host."),
    Entry(
        "invite", "membership.joining:invite", RUNNING,
        "Print a line that lets another host or a person join, once.",
    ),
    Entry("join", "membership.joining:join", RUNNING, "Join a mesh by the line of an invite."),
    Entry(
        "tenants", "membership.members:build_tenants_app", RUNNING,
        "Who may ask, and how much: limits, keys.",
        group=True,
    ),
    Entry("hosts", "membership.members:build_hosts_app", RUNNING, "The hosts that have joined.", group=True),
    Entry(
        "backup", "running.backup:backup", RUNNING,
        "Copy the streams and the event database of this host's mesh.",
    ),
    Entry("restore", "running.backup:restore", RUNNING, "Make a mesh of a backup, for the next `choir up`."),
    Entry(
        "pull", "running.model:pull", RUNNING,
        "Fetch a model to this host, from other hosts or from a hub.",
    ),
    Entry(
        "model", "running.model:build_model_app", RUNNING,
        "Models that the mesh keeps: add, list, copy, remove.",
        group=True,
    ),
    Entry("shard", "running.shard:shard", RUNNING, "Run a model as a pipeline of stages over several nodes."),
    Entry("validate", "running.validate:validate", RUNNING, "Would a mesh run here? What to do if not."),
    Entry(
        "ensembles", "membership.ensembles:build_ensembles_app", RUNNING,
        "Ensembles with a name of their own: list, add, remove.",
        group=True,
    ),
    Entry("completion", "running.completion:completion", RUNNING, "What a shell needs to complete commands."),
    Entry(
        "worker", "running.worker:build_worker_app", RUNNING,
        "External workers: Ollama, LM Studio, Exo and other servers.", group=True,
    ),
    Entry(
        "keys", "membership.keys:build_keys_app", RUNNING,
        "API keys of the gateway: make, limit, revoke them.",
        group=True,
    ),
    Entry(
        "broker", "running.broker:build_broker_app", RUNNING,
        "A NATS that runs already: what it has to be told.",
        group=True,
    ),
    Entry(
        "dead", "running.dead:build_dead_app", RUNNING,
        "What could not be done: look at it, ask it again, drop it.",
        group=True,
    ),
    Entry(
        "eval", "measuring.eval:evaluate", MEASURING,
        "Ask the questions of benchmarks, and compare strategies.",
    ),
    Entry("matrix", "measuring.matrix:matrix", MEASURING, "Measure every generator with every summarizer."),
    Entry(
        "nodes", "looking.nodes:build_nodes_app", LOOKING,
        "All live service instances; hosts taken out of work: cordon, drain, uncordon.", group=True,
    ),
    Entry("models", "looking.overview:models", LOOKING, "All models that can be asked, and all pipelines."),
    Entry("ps", "looking.overview:ps", LOOKING, "The models in memory, and until when they stay there."),
    Entry("status", "looking.overview:status", LOOKING, "The mesh at a glance."),
    Entry(
        "requests", "looking.requests:requests", LOOKING,
        "What was asked lately: ids, status, who was asked.",
    ),
    Entry("scores", "looking.scores:scores", LOOKING, "What the mesh has learnt of its agents."),
    Entry("sql", "looking.sql:sql", LOOKING, "Ask the event database with SQL: every event is a row."),
    Entry("export", "looking.export:export", LOOKING, "What every peer did for every task, as a file."),
    Entry("top", "looking.top:top", LOOKING, "The mesh, live: slots, queue, rates, latency, errors."),
    Entry("report", "looking.report:report", LOOKING, "One HTML page about a time of the mesh."),
    Entry("trace", "looking.trace:trace", LOOKING, "Where the time of one request went, as bars."),
)  # fmt: skip
"""Every command: its name, its function in `commands/`, its heading in `choir --help`, and what it does.

A command's module is imported when the command is typed; the others cost nothing.
"""


class Commands(LazyGroup):
    """All of them."""

    entries = COMMANDS
    start = "Start here: `choir demo`, then `choir up` and, elsewhere, `choir ask`."


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
    if COMPLETION_VARIABLE in os.environ:
        from typer._completion_classes import completion_init  # typer calls it for options of its own

        completion_init()
    app = typer.Typer(
        cls=Commands,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(choir)
    return app
