"""`choir ensembles`: ensembles with a name, which every client asks as a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell import completion
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json, print_outcome

if TYPE_CHECKING:
    from schemas.ensembles.kept import ManageEnsembles, NamedEnsemble

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What clients say as `model`.")]


def list_ensembles(as_json: JsonFlag = False) -> None:
    """Show what is said of each name, by whom, and which counts."""
    from schemas.ensembles.kept import EnsemblesReply, ManageEnsembles
    from services.cli.views.tables.ensembles_table import words_table

    entries = _manage(ManageEnsembles())
    out = console()
    if as_json:
        print_json(EnsemblesReply(ensembles=entries))
    elif entries:
        out.print(words_table(entries))
        for entry in entries:
            if entry.dispute is not None:
                out.print(entry.dispute)
    else:
        out.print("no ensembles; `[[ensembles]]` in choir.toml, or `choir ensembles add`, makes one")


def add(
    name: NameArgument,
    member: Annotated[
        list[str] | None,
        typer.Option(
            "--member",
            metavar="MODEL",
            help="Whom it asks. Again for more; without it all models.",
            autocompletion=completion.model,
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="STRATEGY",
            help="How it decides. Again for more: the first one's decision is the answer.",
            autocompletion=completion.strategies,
        ),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option("--quorum", help="How many answers are enough; without it all.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an ensemble, or another one of yours in its place. What a choir.toml says is changed there."""
    from schemas.ensembles.kept import EnsemblesReply, ManageEnsembles
    from services.client.request_builder import build

    fields = {"name": name, "members": tuple(member or ()), "quorum": quorum}
    if strategy:
        fields["strategies"] = tuple(strategy)
    entries = _manage(build(ManageEnsembles, {"action": "add", "ensemble": fields}))
    print_outcome(EnsemblesReply(ensembles=entries), f"{name} can be asked as a model", as_json)


def remove(name: NameArgument, as_json: JsonFlag = False) -> None:
    """Forget an ensemble, whoever said it. What a choir.toml still says is back with the next `choir up`
    there."""
    from schemas.ensembles.kept import EnsemblesReply, ManageEnsembles
    from services.client.request_builder import build

    entries = _manage(build(ManageEnsembles, {"action": "remove", "name": name}))
    hosts = ", ".join(host for entry in entries for word in entry.words for host in word.hosts)
    again = f"; the choir.toml of {hosts} says it: take it out there, too" if hosts else ""
    print_outcome(EnsemblesReply(ensembles=entries), f"{name} is forgotten{again}", as_json)


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("list", list_ensembles),
    ("add", add),
    ("rm", remove),
)


def build_ensembles_app() -> typer.Typer:
    """`choir ensembles` with its commands."""
    return command_group(COMMANDS, "Ensembles with a name, which every client asks as a model.")


def _manage(request: ManageEnsembles) -> tuple[NamedEnsemble, ...]:
    from services.client.client import Choir

    async def ask() -> tuple[NamedEnsemble, ...]:
        async with Choir() as mesh:
            return await mesh.ensembles(request)

    return asyncio.run(ask())
