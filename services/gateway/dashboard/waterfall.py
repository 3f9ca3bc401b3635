"""Where the time of a request went, as bars. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.replies import Result

PARTS = (
    ("queue_ms", "queue", "in the queue"),
    ("slot_ms", "slot", "waiting for a slot"),
    ("load_ms", "load", "loading"),
    ("prompt_eval_ms", "prompt", "reading the prompt"),
    ("eval_ms", "eval", "generating"),
)
"""The parts of a task in the order in which they come: its column, its colour, what is said of it."""


@dataclass(frozen=True)
class Part:
    """A stretch of a bar, in percent of the width of all."""

    kind: str
    words: str
    start: float
    width: float
    ms: float


@dataclass(frozen=True)
class Bar:
    """One task: who did it, and its parts."""

    name: str
    where: str
    parts: tuple[Part, ...]
    total_ms: float


def bars(tasks: Sequence[Mapping[str, Any]], result: Result | None) -> tuple[Bar, ...]:
    """A bar for each task, on one axis from when the request was accepted to the end of the last.

    `ended_at_s` and the durations are of the clock of the host that did the task; the axis begins by the
    router's. Hosts whose clocks differ are seen to differ.
    """
    if not tasks:
        return ()
    lengths = [sum(float(task[column] or 0.0) for column, _, _ in PARTS) for task in tasks]
    begins = [float(task["ended_at_s"]) * 1000 - length for task, length in zip(tasks, lengths, strict=True)]
    first = min(begins if result is None else [result.accepted_at_s * 1000, *begins])
    last = max(float(task["ended_at_s"]) * 1000 for task in tasks)
    span = max(last - first, 1e-3)
    return tuple(_bar(task, begin - first, span) for task, begin in zip(tasks, begins, strict=True))


def _bar(task: Mapping[str, Any], begin_ms: float, span_ms: float) -> Bar:
    parts, at_ms = [], begin_ms
    for column, kind, words in PARTS:
        took_ms = float(task[column] or 0.0)
        if took_ms > 0:
            parts.append(Part(kind, words, 100 * at_ms / span_ms, 100 * took_ms / span_ms, took_ms))
        at_ms += took_ms
    again = f", round {task['round']}" if (task["round"] or 1) > 1 else ""
    return Bar(
        f"{task['name']}{again}", f"{task['host']}: {task['instance']}", tuple(parts), at_ms - begin_ms
    )
