"""`choir dead`: messages that no service could work on. Looked at, asked again, or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json

if TYPE_CHECKING:
    from schemas.requests.dead_letters import DeadLetter, DeadLettersReply
    from services.client.client import Choir

NumbersArgument = Annotated[
    list[int] | None, typer.Argument(metavar="N", help="Their numbers; `choir dead list` has them.")
]
T = TypeVar("T")

AllFlag = Annotated[bool, typer.Option("--all", help="All that there are now.")]


def list_letters(
    after: Annotated[int, typer.Option(metavar="N", help="Only those with a higher number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many, the oldest first.")] = 100,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this tenant.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what could not be done: when, whose it was, and why. It is kept for 7 days."""
    from schemas.requests.dead_letters import ManageDeadLetters
    from services.cli.views.tables.dead_letters_view import letters_table
    from services.client.request_builder import build

    request = build(ManageDeadLetters, {"after_sequence": after, "limit": limit, "tenant": tenant})
    reply = asyncio.run(_with_mesh(lambda mesh: mesh.dead_letters(request)))
    of_whom = "" if tenant is None else f" --tenant {tenant}"
    if as_json:
        print_json(reply)
    elif reply.letters:
        console().print(letters_table(reply.letters))
        if reply.more_after is not None:
            typer.echo(f"there are more: choir dead list --after {reply.more_after}{of_whom}")
    else:
        console().print("there are no dead letters: all that was asked could be worked on")


def show(
    number: Annotated[int, typer.Argument(metavar="N", help="Its number; `choir dead list` has it.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one letter with its content: the prompt is in it."""
    from services.cli.views.tables.dead_letters_view import print_letter

    reply = asyncio.run(_with_mesh(lambda mesh: _manage(mesh, "show", number)))
    if as_json:
        print_json(reply)
    else:
        print_letter(console(), reply.letters[0])


def retry(numbers: NumbersArgument = None, every: AllFlag = False, as_json: JsonFlag = False) -> None:
    """Ask again what letters asked, each as a new request.

    A request has one result, for ever, and that of a dead one is an error. So the new request has an id of
    its own, which is printed: `choir fetch ID` has its answer. One step of an ensemble or a chain is asked of
    its model alone. It has as much time as it had, and is planned as if it were asked now. The letter is gone
    then.
    """
    _each("retry", numbers, every, as_json)


def drop(numbers: NumbersArgument = None, every: AllFlag = False, as_json: JsonFlag = False) -> None:
    """Delete letters. What was asked in them cannot be asked again then."""
    _each("drop", numbers, every, as_json)


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("list", list_letters),
    ("show", show),
    ("retry", retry),
    ("drop", drop),
)


def build_dead_app() -> typer.Typer:
    """`choir dead` with its commands."""
    return command_group(COMMANDS, "What could not be done: dead letters, and what to do with them.")


def _each(action: str, numbers: list[int] | None, every: bool, as_json: bool) -> None:
    """One letter after the other. Those with which it cannot be done are named, and the exit code is 1."""
    from schemas.errors import ChoirError, InvalidRequest
    from services.cli.views.tables.dead_letters_view import Handled, HandledLetters, handled_line

    if bool(numbers) == every:
        raise InvalidRequest("give the numbers of letters, or --all", field="numbers")

    async def work(mesh: Choir) -> list[Handled]:
        handled = []
        for number in numbers or [letter.sequence for letter in await _all(mesh)]:
            try:
                reply = await _manage(mesh, action, number)
                done = Handled(sequence=number, done=True, retried_as=reply.retried_as)
            except ChoirError as error:
                done = Handled(sequence=number, done=False, error=error.body())
            handled.append(done)
            if not as_json:
                typer.echo(handled_line(action, done), err=not done.done)
        return handled

    handled = asyncio.run(_with_mesh(work))
    if as_json:
        print_json(HandledLetters(letters=tuple(handled)))
    elif not handled:
        typer.echo("there are no dead letters")
    if not all(letter.done for letter in handled):
        raise typer.Exit(1)


async def _all(mesh: Choir) -> list[DeadLetter]:
    from schemas.requests.dead_letters import MOST_LETTERS, ManageDeadLetters

    letters: list[DeadLetter] = []
    after: int | None = 0
    while after is not None:
        reply = await mesh.dead_letters(ManageDeadLetters(after_sequence=after, limit=MOST_LETTERS))
        letters += reply.letters
        after = reply.more_after
    return letters


async def _manage(mesh: Choir, action: str, number: int) -> DeadLettersReply:
    from schemas.requests.dead_letters import ManageDeadLetters
    from services.client.request_builder import build

    return await mesh.dead_letters(build(ManageDeadLetters, {"action": action, "sequence": number}))


async def _with_mesh(work: Callable[[Choir], Awaitable[T]]) -> T:
    from services.client.client import Choir

    async with Choir() as mesh:
        return await work(mesh)
