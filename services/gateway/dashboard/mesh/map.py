"""The mesh as a drawing: the broker, hosts with what runs on them, pipelines from stage to stage. Pure.

Lengths are in units of the drawing, of which the page shows each as one CSS pixel. Texts are as they came:
the template escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelineSummary
from schemas.replies import StatusReply
from services.gateway.dashboard.mesh.view import MeshView
from services.gateway.dashboard.shell.pages import layers, named

COLUMNS = 4
GAP = 32
WIDTH = 240
INDENT = 10
LINE = 17
HEAD = 26
BROKER = 30
BETWEEN = 6
MOST_LINES = 4
"""Models that an agent's box names; the rest is counted."""
MOST_BOXES = 12
"""Boxes that a host has room for; the rest is counted."""
LETTERS = 32
BAR = 4
GENERATING = ("agent", "shard_stage")


@dataclass(frozen=True)
class Box:
    """What is drawn as a box: its lines of text, the whole of it in `words`, and how full it is (0 to 1)."""

    x: int
    y: int
    height: int
    kind: str
    lines: tuple[str, ...]
    words: str
    fill: float | None = None
    width: int = WIDTH - 2 * INDENT

    @property
    def texts(self) -> tuple[tuple[int, str], ...]:
        """Each line, cut to what fits, with the height of its foot."""
        return tuple(
            (self.y + (at + 1) * LINE - 4, _cut(line, LETTERS)) for at, line in enumerate(self.lines)
        )


@dataclass(frozen=True)
class Arrow:
    """From a stage of a pipeline to the next; `d` is its path in SVG's words."""

    d: str
    kind: str
    words: str


@dataclass(frozen=True)
class Drawing:
    """All of it. `broker` is what stands in its box; `stems` lead from there to the hosts."""

    width: int = 0
    height: int = 0
    hosts: tuple[Box, ...] = ()
    boxes: tuple[Box, ...] = ()
    stems: tuple[str, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    words: str = ""
    broker: str = "broker"


@dataclass
class _Drawn:
    hosts: list[Box] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    places: dict[str, Box] = field(default_factory=dict)


def drawing_of(view: MeshView) -> Drawing:
    """The mesh of a moment."""
    drawn, names = _Drawn(), tuple(view.hosts)
    columns = max(1, min(COLUMNS, len(names)))
    top = BROKER + GAP
    for row in range(0, len(names), columns):
        bottom = top
        for column, name in enumerate(names[row : row + columns]):
            x = GAP + column * (WIDTH + GAP)
            bottom = max(bottom, _draw_host(drawn, name, view.hosts[name], x, top))
        top = bottom + GAP
    arrows = tuple(arrow for pipeline in view.pipelines for arrow in _arrows(pipeline, drawn.places))
    words = (
        f"Map of the mesh: {len(names)} hosts, {len(view.nodes)} services, {len(view.models)} models, "
        f"{len(view.pipelines)} pipelines"
    )
    width = GAP + columns * (WIDTH + GAP)
    return Drawing(
        width, top, tuple(drawn.hosts), tuple(drawn.boxes), tuple(drawn.stems), arrows, words,
        _cut(_broker(view.status), LETTERS * (width - GAP) // WIDTH),
    )  # fmt: skip


def _broker(status: StatusReply | None) -> str:
    """How much is queued, and for which models something waits, those with most of it first."""
    if status is None:
        return "broker"
    waiting = sorted((-queue.waiting, name) for name, queue in status.queues.items() if queue.waiting)
    told = ", ".join(f"{name} {-count}" for count, name in waiting)
    return f"broker, {status.queued} in the queue" + (f"; waiting: {told}" if told else "")


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}\u2026"


def _draw_host(drawn: _Drawn, name: str, nodes: Sequence[NodeLease], x: int, top: int) -> int:
    """Draws a host and what runs there, and returns where it ends."""
    y = top + HEAD
    ordered = sorted(nodes, key=lambda node: node.service not in GENERATING)
    for node in ordered[:MOST_BOXES]:
        lines = _lines(node)
        box = Box(x + INDENT, y, len(lines) * LINE + BETWEEN, _kind(node), lines, _words(node), _fill(node))
        drawn.boxes.append(box)
        drawn.places[node.instance] = box
        y += box.height + BETWEEN
    more = len(ordered) - MOST_BOXES
    if more > 0:
        drawn.boxes.append(Box(x + INDENT, y, LINE, "more", (f"and {more} more",), f"{more} more services"))
        y += LINE + BETWEEN
    drawn.hosts.append(Box(x, top, y - top + BETWEEN, "host", (name,), f"Host {named(name)}", width=WIDTH))
    drawn.stems.append(f"M {x - GAP // 2} {BROKER} V {top + HEAD // 2} H {x}")
    return y + BETWEEN


def _lines(node: NodeLease) -> tuple[str, ...]:
    if node.stage is not None:
        held = node.stage.held
        what = "stands by" if held is None else f"{held.model}: {layers(held.first_layer, held.end_layer)}"
        return node.instance, what
    names = [model.name for model in node.models]
    if len(names) > MOST_LINES:
        names = [*names[: MOST_LINES - 1], f"and {len(names) - MOST_LINES + 1} more"]
    return node.instance, *names


def _kind(node: NodeLease) -> str:
    return "resting" if node.cordon is not None and node.state == "ready" else node.state


def _fill(node: NodeLease) -> float | None:
    return min(1.0, node.busy / node.slots) if node.slots and node.service in GENERATING else None


def _words(node: NodeLease) -> str:
    """What somebody is told who does not see the box."""
    lines = _lines(node)
    busy = f", {node.busy} of {node.slots} slots busy" if _fill(node) is not None else ""
    has = ", ".join(lines[1:]) or "no models"
    return f"{node.service.replace('_', ' ')} {lines[0]}, {_kind(node)}{busy}: {has}"


def _arrows(pipeline: PipelineSummary, places: dict[str, Box]) -> list[Arrow]:
    arrows = []
    stages = pipeline.stages
    for before, after in pairwise(stages):
        source, target = places.get(before.instance), places.get(after.instance)
        if source is None or target is None:
            continue
        kind = "ready" if before.ready and after.ready else "starting"
        words = f"{pipeline.model}: {before.instance} hands on to {after.instance}"
        arrows.append(Arrow(_path(source, target), kind, words))
    return arrows


def _path(source: Box, target: Box) -> str:
    """From the right of a box to the left of another; around the right where they are in one column."""
    y, to = source.y + source.height // 2, target.y + target.height // 2
    start, bend = source.x + source.width, GAP
    if target.x > source.x:
        return f"M {start} {y} C {start + bend} {y} {target.x - bend} {to} {target.x} {to}"
    if target.x == source.x:
        return f"M {start} {y} C {start + bend} {y} {start + bend} {to} {start} {to}"
    end = target.x + target.width
    return f"M {source.x} {y} C {source.x - bend} {y} {end + bend} {to} {end} {to}"
