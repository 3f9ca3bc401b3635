"""The panes of `choir top`: instances, models, external workers, pipelines. Pure: rows and how they sort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from rich.text import Text

from services.cli.top.rows import ModelRow, NodeRow, StageRow, WorkerRow
from services.cli.top.snapshot import Snapshot
from services.cli.views.tables.overview_tables import NOTHING, STATE_STYLES, size
from services.cli.views.terminal import plain

RowT = TypeVar("RowT")
FIRST = ("agent", "shard_stage")
CIRCUIT_STYLES = {"works": "green", "cordoned": "yellow", "on trial": "yellow", "out": "bold red"}


@dataclass(frozen=True)
class Column(Generic[RowT]):
    """A column: how a cell looks, and what it is sorted by; `wide` ones need room."""

    name: str
    cell: Callable[[RowT], str | Text]
    by: Callable[[RowT], tuple[float, str]]
    right: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Pane(Generic[RowT]):
    """One list: its key, its name, its rows in their first order, its columns."""

    key: str
    name: str
    rows: Callable[[Snapshot], Sequence[RowT]]
    columns: tuple[Column[RowT], ...]
    named: Callable[[RowT], str] | None = None

    def count(self, snapshot: Snapshot) -> int:
        """How many things the pane has: its rows, or what several rows are one of."""
        rows = self.rows(snapshot)
        return len(rows) if self.named is None else len({self.named(row) for row in rows})


@dataclass(frozen=True)
class Look:
    """Which pane is shown and how it is sorted: by a column's number, or as it comes."""

    pane: int = 0
    column: int | None = None
    reverse: bool = False

    def after(self, key: str) -> Look:
        """What is shown after a key: another pane, the next column, the other way round."""
        keys = [pane.key for pane in PANES]
        if key in keys:
            return self if keys.index(key) == self.pane else Look(keys.index(key))
        if key == "\t":
            return Look((self.pane + 1) % len(PANES))
        if key == "s":
            following = 0 if self.column is None else self.column + 1
            columns = len(PANES[self.pane].columns)
            return replace(self, column=following if following < columns else None, reverse=False)
        if key == "r":
            return replace(self, reverse=not self.reverse)
        return self

    @property
    def sorted_by(self) -> str:
        """The name of the column, and which way."""
        pane = PANES[self.pane]
        name = "as it comes" if self.column is None else pane.columns[self.column].name
        return f"{name}, reversed" if self.reverse else name

    def rows(self, snapshot: Snapshot) -> list[Any]:
        """The rows of the pane, sorted. Numbers begin with the largest, names with the first."""
        pane = PANES[self.pane]
        rows = list(pane.rows(snapshot))
        if self.column is not None:
            column = pane.columns[self.column]
            rows.sort(key=column.by, reverse=column.right)
        return rows[::-1] if self.reverse else rows


def of(busy: int, slots: int) -> str:
    """`3/8`; what waits beside full slots is told apart: `8/8+1`. Without slots nothing."""
    if not slots:
        return NOTHING
    return f"{busy}/{slots}" if busy <= slots else f"{slots}/{slots}+{busy - slots}"


def per_s(value: float | None) -> str:
    """A rate."""
    return NOTHING if value is None else f"{value:.1f}"


def ms(value: float | None) -> str:
    """A duration; large ones without decimals."""
    if value is None:
        return NOTHING
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _word(get: Callable[[RowT], str]) -> Callable[[RowT], tuple[float, str]]:
    return lambda row: (0.0, get(row))


def _number(get: Callable[[RowT], float | None]) -> Callable[[RowT], tuple[float, str]]:
    return lambda row: (-1.0 if (value := get(row)) is None else value, "")


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} %"


def _nodes(snapshot: Snapshot) -> list[NodeRow]:
    return sorted(snapshot.nodes, key=lambda node: (node.service not in FIRST, node.service, node.instance))


NODES: Pane[NodeRow] = Pane(
    "n",
    "nodes",
    _nodes,
    (
        Column("instance", lambda r: plain(r.instance), _word(lambda r: r.instance)),
        Column("host", lambda r: plain(r.host), _word(lambda r: r.host), wide=True),
        Column("state", lambda r: Text(r.state, STATE_STYLES[r.state]), _word(lambda r: r.state)),
        Column("slots", lambda r: of(r.busy, r.slots), _number(lambda r: r.busy), right=True),
        Column("cpu", lambda r: _percent(r.cpu_percent), _number(lambda r: r.cpu_percent), right=True),
        Column(
            "memory", lambda r: size(r.memory_used_bytes), _number(lambda r: r.memory_used_bytes), right=True
        ),
        Column("gpu", lambda r: _percent(r.gpu_percent), _number(lambda r: r.gpu_percent), True, True),
        Column("rtt", lambda r: ms(r.broker_rtt_ms), _number(lambda r: r.broker_rtt_ms), True, True),
        Column("tasks/s", lambda r: per_s(r.tasks_per_s), _number(lambda r: r.tasks_per_s), right=True),
        Column("tokens/s", lambda r: per_s(r.tokens_per_s), _number(lambda r: r.tokens_per_s), right=True),
    ),
)
MODELS: Pane[ModelRow] = Pane(
    "m",
    "models",
    lambda snapshot: snapshot.served,
    (
        Column("model", lambda r: plain(r.model), _word(lambda r: r.model)),
        Column("served by", lambda r: plain(", ".join(r.by)), _word(lambda r: r.by[0] if r.by else "")),
        Column("slots", lambda r: of(r.busy, r.slots), _number(lambda r: r.busy), right=True),
        Column("waiting", lambda r: _count(r.waiting), _number(lambda r: r.waiting), right=True),
        Column("speed tokens/s", lambda r: per_s(r.tokens_per_s), _number(lambda r: r.tokens_per_s), True),
        Column("context", lambda r: _count(r.context_tokens), _number(lambda r: r.context_tokens), True),
        Column("size", lambda r: size(r.size_bytes), _number(lambda r: r.size_bytes), True),
        Column("quant", lambda r: r.quantisation or NOTHING, _word(lambda r: r.quantisation or "")),
        Column("file", lambda r: plain(r.file or NOTHING), _word(lambda r: r.file or ""), wide=True),
    ),
)
WORKERS: Pane[WorkerRow] = Pane(
    "w",
    "workers",
    lambda snapshot: snapshot.workers,
    (
        Column("worker", lambda r: plain(r.worker), _word(lambda r: r.worker)),
        Column("type", lambda r: r.type, _word(lambda r: r.type), wide=True),
        Column("address", lambda r: plain(r.url), _word(lambda r: r.url), wide=True),
        Column("model", lambda r: plain(r.model), _word(lambda r: r.model)),
        Column("state", lambda r: Text(r.state, CIRCUIT_STYLES[r.state]), _word(lambda r: r.state)),
        Column("slots", lambda r: of(r.busy, r.slots), _number(lambda r: r.busy), right=True),
        Column("speed tokens/s", lambda r: per_s(r.tokens_per_s), _number(lambda r: r.tokens_per_s), True),
        Column("agent", lambda r: plain(r.agent), _word(lambda r: r.agent)),
    ),
)
PIPELINES: Pane[StageRow] = Pane(
    "p",
    "pipelines",
    lambda snapshot: snapshot.stages,
    (
        Column("pipeline", lambda r: plain(r.model), _word(lambda r: f"{r.model} {r.stage}")),
        Column("stage", lambda r: str(r.stage), _number(lambda r: r.stage), right=True),
        Column("layers", lambda r: r.layers, _word(lambda r: r.layers)),
        Column("instance", lambda r: plain(r.instance), _word(lambda r: r.instance)),
        Column("host", lambda r: plain(r.host), _word(lambda r: r.host), wide=True),
        Column("state", lambda r: "ready" if r.ready else "loading", _word(lambda r: str(r.ready))),
        Column("slots", lambda r: of(r.busy, r.slots), _number(lambda r: r.busy), right=True),
        Column("step", lambda r: ms(r.step_ms), _number(lambda r: r.step_ms), right=True),
        Column("tokens/s", lambda r: per_s(r.tokens_per_s), _number(lambda r: r.tokens_per_s), right=True),
    ),
    named=lambda r: r.model,
)
PANES: tuple[Pane[Any], ...] = (
    NODES,
    MODELS,
    WORKERS,
    PIPELINES,
)
"""Every pane, in the order in which the tab key goes through them."""


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def fitting(columns: Iterable[Column[RowT]], *, wide: bool) -> list[Column[RowT]]:
    """The columns for which there is room."""
    return [column for column in columns if wide or not column.wide]
