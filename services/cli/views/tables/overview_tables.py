"""Nodes, models and status as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from schemas.errors import ErrorBody
from schemas.nodes.lease import CLOCK_TOLERANCE_S, Gpu, NodeLease
from schemas.replies import ModelSummary, StatusReply
from services.cli.views.terminal import counted_services

GIB = 1024**3
MIB = 1024**2
STATE_STYLES = {
    "ready": "green", "starting": "yellow", "draining": "yellow", "broken": "bold red", "cordoned": "yellow",
    "drained": "cyan",
}  # fmt: skip
NOTHING = "-"
NAME_WIDTH = 11
WIDE = 100
"""From so many columns on there is room for what is nice to know."""


def table(*columns: str, right: Sequence[str] = (), named: bool = False) -> Table:
    """An empty table in the house style; the columns in `right` hold numbers.

    With `named` the first column holds names, which are never broken: they are there to be copied.
    """
    empty = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        empty.add_column(column, justify="right" if column in right else "left", overflow="fold")
    if named:
        empty.columns[0].no_wrap, empty.columns[0].overflow = True, "ellipsis"
    return empty


def size(count: int | None) -> str:
    """Bytes, for people: `410 MiB`, `2.1 GiB`."""
    if count is None:
        return NOTHING
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def number(count: float | None) -> str:
    """A quantity, for people: `512`, `1.9 M`, `7.2 B`."""
    if count is None:
        return NOTHING
    for unit, factor in (("B", 1e9), ("M", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:,.0f}"


def nodes_table(nodes: Iterable[NodeLease], width: int = WIDE) -> Table:
    """One line for each live instance; the host's load and free memory where there is room for them."""
    wide = width >= WIDE
    load, free = (("load",), ("free",)) if wide else ((), ())
    rows = table(
        "instance", "host", "state", "serves", "slots", *load, "cpu", "memory", *free, "gpu",
        right=("slots", "load", "cpu", "memory", "free"), named=True,
    )  # fmt: skip
    for node in nodes:
        rows.add_row(
            node.instance,
            _host(node),
            Text(state := state_of(node), STATE_STYLES[state]),
            _serves(node),
            f"{node.busy}/{node.slots}" if node.slots else NOTHING,
            *((f"{node.load_average:.1f}",) if wide else ()),
            f"{node.cpu_percent:.0f} %",
            size(node.memory_used_bytes),
            *((size(node.host_memory_free_bytes),) if wide else ()),
            "\n".join(_gpu(gpu) for gpu in node.gpus) or NOTHING,
        )
    return rows


def state_of(node: NodeLease) -> str:
    """Its state; of one with a cordon around it, how far it is out of work."""
    if node.cordon is None or node.state != "ready":
        return node.state
    if node.drained:
        return "drained"
    return "draining" if node.cordon == "drain" or node.busy else "cordoned"


def _host(node: NodeLease) -> str:
    """The host's name, and how far its clock is off if that is far."""
    ahead_s = node.clock_ahead_s or 0.0
    return node.host if abs(ahead_s) <= CLOCK_TOLERANCE_S else f"{node.host} (clock {ahead_s:+.0f} s)"


def _serves(node: NodeLease) -> str:
    """Models of an agent, or the stage that an instance holds."""
    if node.stage is None:
        return ", ".join(model.name for model in node.models) or NOTHING
    held = node.stage.held
    return f"{held.model}, stage {held.stage}" if held is not None else "no stage"


def _gpu(gpu: Gpu) -> str:
    used = gpu.memory_total_bytes - gpu.memory_free_bytes
    return f"{gpu.name} {gpu.utilization_percent:.0f} %, {size(used)} of {size(gpu.memory_total_bytes)}"


def problem_lines(nodes: Iterable[NodeLease]) -> list[Text]:
    """A line for everything that an instance complains of."""
    lines = []
    for node in nodes:
        faults = [node.problem, *(model.problem for model in node.models)]
        lines += [_problem(node.instance, fault) for fault in dict.fromkeys(faults) if fault is not None]
    return lines


def _problem(who: str, fault: ErrorBody) -> Text:
    return Text.assemble((f"{who}: ", "bold red"), f"{fault.code}: {fault.message}")


def models_table(models: Iterable[ModelSummary], width: int = WIDE) -> Table:
    """One line for each model that can be asked; its file where there is room for it."""
    file = ("file",) if width >= WIDE else ()
    rows = table(
        "model", "agents", "slots", "busy", "context", "params", "size", "quant", "tokens/s", *file,
        right=("slots", "busy", "context", "params", "size", "tokens/s"), named=True,
    )  # fmt: skip
    for model in models:
        rows.add_row(
            model.name,
            ", ".join(model.agents),
            str(model.slots),
            str(model.busy),
            number(model.context_tokens),
            number(model.parameters),
            size(model.size_bytes),
            model.quantisation or NOTHING,
            number(model.tokens_per_s),
            *((model.file or NOTHING,) if file else ()),
        )
    return rows


def unusable_models(nodes: Iterable[NodeLease]) -> tuple[Text, ...]:
    """A line for each model that an agent should serve and cannot."""
    return tuple(
        _problem(f"{model.name} ({node.instance})", model.problem)
        for node in nodes
        for model in node.models
        if model.problem is not None
    )


def status_lines(status: StatusReply) -> list[Text]:
    """The mesh in a few lines."""
    lines = [
        _line("services", counted_services(status.services) or "none"),
        _line("models", ", ".join(status.models) or "none can be asked"),
        _line("slots", f"{status.busy} of {status.slots} busy"),
        _line("queued", queued(status)),
        _line("results", f"{status.results} kept"),
    ]
    if status.pipelines:
        told = ", ".join(f"{model} {state}" for model, state in sorted(status.pipelines.items()))
        lines.append(_line("pipelines", told))
    return lines + [
        Text.assemble((f"{'problem':<{NAME_WIDTH}}", "bold red"), problem) for problem in status.problems
    ]


def queued(status: StatusReply) -> str:
    """How much is queued, and of which models something waits: `12; choir-qwen: 8 wait, 2 in work`."""
    waiting = [
        f"{name}: {queue.waiting} wait, {queue.in_work} in work"
        for name, queue in status.queues.items()
        if queue.waiting
    ]
    return "; ".join((str(status.queued), *waiting))


def _line(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<{NAME_WIDTH}}", "bold"), value)
