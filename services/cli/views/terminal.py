"""The output of commands: rich for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from schemas.message import Struct

WIDTH_WITHOUT_TERMINAL = 120
_COMMANDS = dict.fromkeys([code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"])


def console() -> Console:
    """Standard output. Where it is no terminal there is no colour, and room for a whole line."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, markup=False, emoji=False, width=width)


def plain(text: str) -> str:
    """A text that others wrote, without what would command the terminal."""
    return text.translate(_COMMANDS)


def counted(number: int, name: str) -> str:
    """`1 agent`, `2 agents`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def counted_services(services: Mapping[str, int]) -> str:
    """`4 agents, 1 metrics, 2 shard stages`; nothing of none."""
    told = ((name.replace("_", " "), count) for name, count in sorted(services.items()))
    return ", ".join(
        f"{count} {name}" if name.endswith("s") else counted(count, name) for name, count in told
    )


def print_json(document: Struct) -> None:
    """Prints a message as one JSON document."""
    typer.echo(document.model_dump_json(indent=2, exclude_none=True))


def print_text(name: str, text: str, as_json: bool) -> None:
    """Prints a text for another program as it stands, or in a JSON document under this name."""
    typer.echo(json.dumps({name: text}, indent=2) if as_json else text.rstrip("\n"))


def print_outcome(document: Struct, line: str, as_json: bool) -> None:
    """Prints what became of a command: the whole of it as JSON, or a line of words."""
    if as_json:
        print_json(document)
    else:
        console().print(line)


def print_json_line(document: Struct) -> None:
    """Prints a message as one line of JSON, at once: whoever reads it waits for the next one."""
    typer.echo(document.model_dump_json(exclude_none=True))
    sys.stdout.flush()
