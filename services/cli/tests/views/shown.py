"""What tests of tables see: the lines of a terminal."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

COLUMNS = 80


def lines_of(*things: RenderableType) -> list[str]:
    """What a terminal of COLUMNS columns shows, without colours and without blanks at the ends of lines."""
    out = Console(width=COLUMNS, markup=False, highlight=False, file=io.StringIO())
    for thing in things:
        out.print(thing)
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]
