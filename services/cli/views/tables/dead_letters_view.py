"""Dead letters for people: a table, one letter with its content, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from schemas import subjects
from schemas.errors import ErrorBody
from schemas.message import Struct
from schemas.requests.dead_letters import DeadLetter
from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import plain
from services.cli.workers.tables import ago


class Handled(Struct):
    """What became of one letter; `retried_as` is the new request, if it was asked again."""

    sequence: int
    done: bool
    retried_as: str | None = None
    error: ErrorBody | None = None


class HandledLetters(Struct):
    """The same of several, as one document."""

    letters: tuple[Handled, ...]


def letters_table(letters: Iterable[DeadLetter]) -> Table:
    """A line for each."""
    rows = table("number", "tenant", "request", "age", "given up by", "what", "why", right=("number",))
    for letter in letters:
        age = ago(time.time() - letter.died_at_s)
        tenant, request_id = subjects.owner_of(letter.request_id), subjects.bare_id(letter.request_id)
        why = plain(letter.reason)
        rows.add_row(str(letter.sequence), tenant, request_id, age, letter.service, what(letter), why)
    return rows


def what(letter: DeadLetter) -> str:
    """`generate alpha, a step of the aggregator`."""
    named = " ".join((letter.letter, ", ".join(map(plain, letter.models)))).rstrip()
    return named if letter.part_of is None else f"{named}, a step of the {letter.part_of}"


def print_letter(out: Console, letter: DeadLetter) -> None:
    """All of one."""
    out.print(letters_table((letter,)))
    out.print()
    out.print(plain(letter.content or "(no content)"))


def handled_line(action: str, handled: Handled) -> str:
    """What became of a letter, in one line."""
    if handled.error is not None:
        return f"{handled.sequence}: {plain(handled.error.message)}"
    if action == "retry":
        return f"{handled.sequence}: asked again as {handled.retried_as}; choir fetch {handled.retried_as}"
    return f"{handled.sequence}: dropped"
