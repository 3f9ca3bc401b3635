"""A line of a service's log, taken apart: how grave it is, and what of it is for people. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

GRAVE = ("warning", "error", "critical")
LINE = re.compile(r"\d{4}-\d\d-\d\d[T ]\S+ +\[(?P<level>\w+) *\] (?P<said>.*)", re.DOTALL)
OF_THE_INSTANCE = re.compile(r"\s+(?:instance|service)=\S+")
SPACES = re.compile(r" {2,}")
CHATTER = ("llama_", "ggml_", "gguf_")
"""How lines begin that llama.cpp writes about itself: nothing that somebody who runs a mesh can act on."""
TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a line says. `level` is None for a line that belongs to the one before, or to no log at all."""

    level: str | None
    said: str

    @property
    def grave(self) -> bool:
        """Whether somebody should see it."""
        return self.level in GRAVE and not self.said.startswith(CHATTER)


def read(line: str) -> Entry:
    """`2026-11-21T14:29:00.123Z [error    ] no disk   instance=metrics` as error and `no disk`."""
    match = LINE.fullmatch(line)
    if match is None:
        return Entry(None, line)
    return Entry(match["level"], SPACES.sub(" ", OF_THE_INSTANCE.sub("", match["said"])).strip())


class GraveLines:
    """Which lines of the services people see: warnings, errors, and the tracebacks that follow them."""

    def __init__(self) -> None:
        self._shown: dict[str, bool] = {}

    def take(self, instance: str, line: str) -> str | None:
        """What to show of a line, if anything."""
        entry = read(line)
        if entry.level is not None:
            self._shown[instance] = entry.grave
            return f"{entry.level}: {entry.said}" if entry.grave else None
        if line.startswith(TRACEBACK):
            self._shown[instance] = True
        return entry.said if self._shown.get(instance, False) else None
