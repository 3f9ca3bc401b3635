"""Shows the output of a host's processes on one screen: each line with the name of its process."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

Forward = Callable[[str, str], None]
"""Takes the name of an instance and one line that it wrote."""

COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_blue")


_COMMANDS = dict.fromkeys([*(code for code in range(0x20) if chr(code) != "\t"), *range(0x7F, 0xA0)])


def without_commands(line: str) -> str:
    """A line without what would command the terminal that shows it: libraries print what strangers send."""
    return line if line.isprintable() else line.translate(_COMMANDS)


def to_console(console: Console, name_width: int = 18) -> Forward:
    """Forward to a terminal, a colour for each instance; plain text where there is no terminal."""

    def forward(instance: str, line: str) -> None:
        colour = COLOURS[zlib.crc32(instance.encode()) % len(COLOURS)]
        text = Text.assemble((f"{instance:<{name_width}}", colour), " | ", line)
        console.print(text, soft_wrap=True, highlight=False)

    return forward
