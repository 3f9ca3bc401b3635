"""The cost model: milliseconds for a token, and bytes of memory, of a slice on a node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from schemas.pipelines.plan import Shardable, StepCost

MS_PER_S = 1e3
STAGE_OVERHEAD_BYTES = 250_000_000
"""Memory of a stage process beside its weights and its cache: interpreter, libraries, compute buffers."""


Memory = tuple[str, bool]
"""The memory of a host, or with True that of its GPUs."""


@dataclass(frozen=True)
class Node:
    """An instance that could hold a stage.

    `layer_ms` is one layer for one token of one sequence, `last_ms` norm and output matrix, `hop_ms` a
    message to another service. `threads` are those it computes with, `cores` those of its host, if known.
    `on_gpu` says that its memory is of the host's GPUs. `costs` are what more rows cost, by ascending rows.
    """

    instance: str
    host: str
    layer_ms: float
    last_ms: float
    hop_ms: float
    memory_bytes: int
    threads: int = 1
    cores: int | None = None
    on_gpu: bool = False
    costs: tuple[StepCost, ...] = ()

    @property
    def memory(self) -> Memory:
        """The memory that it shares with others: its host's, or that of the host's GPUs."""
        return self.host, self.on_gpu

    def step_ms(self, layers: int, *, is_last: bool) -> float:
        """The computing of one token in a slice of so many layers."""
        return layers * self.layer_ms + (self.last_ms if is_last else 0.0)

    def cost(self, rows: int, *, beside: bool) -> float:
        """A step of so many rows, in steps of one row alone; `beside` other stages that compute on its host.

        Between two numbers of rows that were measured, and beyond the last one, it is on a line. Where
        nothing was measured, rows in a step gain nothing, and others take nothing.
        """
        points = [(cost.rows, cost.beside if beside else cost.alone) for cost in self.costs]
        if len(points) < 2:
            return rows * (points[0][1] if points else 1.0)
        (low, less), (high, more) = next(
            (pair for pair in pairwise(points) if pair[1][0] >= rows), (points[-2], points[-1])
        )
        return less + (more - less) * (rows - low) / (high - low)


@dataclass(frozen=True)
class Slices:
    """A model, for whoever cuts it: `borders` are all layers at which a slice may begin or end, from 0 to the
    number of layers; a block is what lies between two borders. `cells` are the tokens that a cache has room
    for, of all slots together."""

    borders: tuple[int, ...]
    layer_bytes: tuple[int, ...]
    first_bytes: int
    last_bytes: int
    cell_bytes: int
    cells: int

    @classmethod
    def of(cls, model: Shardable, slots: int, context_tokens: int) -> Slices:
        """The slices of an offered model, with caches of `slots` sequences of `context_tokens` each."""
        borders = (0, *model.cuts, model.layers)
        cells = slots * context_tokens
        return cls(borders, model.layer_bytes, model.first_bytes, model.last_bytes, model.cell_bytes, cells)

    @property
    def blocks(self) -> int:
        """How many blocks there are: the most stages that the model can have."""
        return len(self.borders) - 1

    @cached_property
    def _bytes_before(self) -> tuple[int, ...]:
        return tuple(accumulate(self.layer_bytes, initial=0))

    def layers(self, start: int, end: int) -> int:
        """How many layers the blocks from `start` up to `end` have."""
        return self.borders[end] - self.borders[start]

    def need_bytes(self, start: int, end: int) -> int:
        """The memory of a stage of these blocks: weights, cache, and the overhead of its process."""
        first, last = self.borders[start], self.borders[end]
        weights = self._bytes_before[last] - self._bytes_before[first]
        weights += self.first_bytes if start == 0 else 0
        weights += self.last_bytes if end == self.blocks else 0
        return weights + (last - first) * self.cell_bytes * self.cells + STAGE_OVERHEAD_BYTES

    def step_ms(self, node: Node, start: int, end: int) -> float:
        """The computing of one token by a stage of these blocks on a node."""
        return node.step_ms(self.layers(start, end), is_last=end == self.blocks)

    def whole_ms(self, node: Node) -> float | None:
        """A token of the whole model on one node; None if it does not fit there."""
        fits = self.need_bytes(0, self.blocks) <= node.memory_bytes
        return self.step_ms(node, 0, self.blocks) if fits else None


@dataclass(frozen=True)
class StagePlacement:
    """A node with the blocks from `start` up to `end`."""

    node: Node
    start: int
    end: int


@dataclass(frozen=True)
class Split:
    """A whole model on nodes, in order.

    Every stage sends one message for each token, the last one back to the first, so a stage is occupied for
    its computing and one hop; a single stage needs none. `slowest_ms` is the longest of that and `total_ms`
    the sum, which is what a token of a single stream takes.
    """

    slices: Slices
    placements: tuple[StagePlacement, ...]

    @cached_property
    def steps_ms(self) -> tuple[float, ...]:
        """The computing of each stage for one token."""
        return tuple(
            self.slices.step_ms(placement.node, placement.start, placement.end)
            for placement in self.placements
        )

    @cached_property
    def occupied_ms(self) -> tuple[float, ...]:
        """The time that one token occupies each stage."""
        return occupied(self.steps_ms, [placement.node for placement in self.placements])

    @property
    def slowest_ms(self) -> float:
        """The slowest stage."""
        return max(self.occupied_ms)

    @property
    def total_ms(self) -> float:
        """A token of a single stream."""
        return sum(self.occupied_ms)

    def tokens_per_s(self, streams: int) -> float:
        """Throughput of so many overlapping streams together, 0 if unknown; in steps of as many rows as suit
        best, and leave every stage something to do, as stage 0 has it.

        The slowest stage limits it; or the streams do, where they are too few to keep all stages busy; or a
        host whose stages have more threads than it has cores.
        """
        if self.slowest_ms == 0:
            return 0.0
        measured = all(placement.node.costs for placement in self.placements)
        most = max(1, streams // len(self.placements)) if measured else 1
        return max(self._tokens_per_s(streams, rows) for rows in {*powers_of_two(most), most})

    def _tokens_per_s(self, streams: int, rows: int) -> float:
        """The same in steps of so many rows. Stages of one host slow each other down where there is more than
        one group of rows, since only then do they compute at the same time."""
        groups = streams / rows
        stages_on = Counter(placement.node.memory for placement in self.placements)
        costs = [
            placement.node.cost(rows, beside=groups > 1 and stages_on[placement.node.memory] > 1)
            for placement in self.placements
        ]
        steps_ms = [step_ms * cost for step_ms, cost in zip(self.steps_ms, costs, strict=True)]
        stages_ms = occupied(steps_ms, [placement.node for placement in self.placements])
        host_ms = self._busiest_host_ms * max(costs)
        return MS_PER_S * streams / max(groups * max(stages_ms), sum(stages_ms), groups * host_ms)

    @cached_property
    def _busiest_host_ms(self) -> float:
        """Computing time of one token on the busiest host, all of its stages together."""
        core_ms: dict[str, float] = {}
        cores: dict[str, int] = {}
        for placement, step_ms in zip(self.placements, self.steps_ms, strict=True):
            node = placement.node
            if node.cores is not None:
                core_ms[node.host] = core_ms.get(node.host, 0.0) + step_ms * min(node.threads, node.cores)
                cores[node.host] = node.cores
        return max((core_ms[host] / count for host, count in cores.items()), default=0.0)


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on, up to `most`."""
    return tuple(1 << power for power in range(most.bit_length()))


def occupied(steps_ms: Sequence[float], nodes: Sequence[Node]) -> tuple[float, ...]:
    """The time that each stage is occupied for by one token, hops included where there is more than one."""
    if len(nodes) == 1:
        return (steps_ms[0],)
    return tuple(step + node.hop_ms for step, node in zip(steps_ms, nodes, strict=True))
