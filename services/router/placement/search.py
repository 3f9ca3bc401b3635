"""The search for the best split of a model over nodes.

The search minimises, in this order: the time of the slowest stage, the time of a token, and how uneven the
stages are.

To place contiguous blocks on unequal nodes is NP-hard (Benoit & Robert, "Mapping pipeline skeletons onto
heterogeneous platforms", JPDC 2008), so this is a search with a bound. For a limit on the slowest stage, a
state is (stage, first block, nodes used); from each state only those ends are tried from which the nodes that
are left could still reach the last block. States that failed are remembered, so for n nodes and b blocks at
most 2^n * b of them are looked into, n * b ends each; bisection over the n * 2 * layers lengths that a stage
can take gives the least limit. In practice the bound leaves a few states for each stage.

The result is the best one for up to EXACT_NODES nodes. With more a search ends after MAX_STATES states for
each limit, and the result may be worse than the best one: only limits close to the least take that many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from services.router.placement.cost_model import Node, Slices, Split, StagePlacement

EXACT_NODES = 8
NANOSECOND_DIGITS = 6
"""Milliseconds are told apart to the nanosecond: below is rounding."""
MAX_STATES = 2_000

State = tuple[int, int, frozenset[int]]
Chosen = tuple[tuple[float, float], tuple[StagePlacement, ...]]
"""The value to minimise, the time of a token, the sum of the stages' squares, and the stages."""


def best_split(slices: Slices, choices: Sequence[Sequence[Node]]) -> Split | None:
    """The best split in which stage k is on one of `choices[k]`, each node at most once; None if there is
    none within the nodes' memory."""
    if len(choices) > slices.blocks:
        return None
    limits = sorted(_lengths(slices, choices))
    at = bisect_left(limits, True, key=lambda limit: _Search(slices, choices, limit).first() is not None)
    if at == len(limits):
        return None
    search = _Search(slices, choices, limits[at])
    placements = search.cheapest() or _Search(slices, choices, limits[at]).first()
    return Split(slices, placements) if placements else None


def _lengths(slices: Slices, choices: Sequence[Sequence[Node]]) -> set[float]:
    """Every time that a stage can be occupied for."""
    nodes = {node for group in choices for node in group}
    counts = {slices.layers(i, j) for i in range(slices.blocks) for j in range(i + 1, slices.blocks + 1)}
    hops = len(choices) > 1
    return {
        node.step_ms(count, is_last=is_last) + (node.hop_ms if hops else 0.0)
        for node in nodes
        for count in counts
        for is_last in (False, True)
    }


class _Search:
    """The splits whose slowest stage is not above one limit."""

    def __init__(self, slices: Slices, choices: Sequence[Sequence[Node]], limit_ms: float) -> None:
        self._slices = slices
        self._limit_ms = limit_ms
        self._stages = len(choices)
        fastest_first = sorted(
            {node for group in choices for node in group}, key=lambda node: (node.layer_ms, node.instance)
        )
        self._nodes = tuple(fastest_first)
        index = {node: number for number, node in enumerate(fastest_first)}
        self._choices = [sorted(index[node] for node in group) for group in choices]
        self._reach = [[self._furthest(node, at) for at in range(slices.blocks)] for node in self._nodes]
        self._most = [max(end - start for start, end in enumerate(reach)) for reach in self._reach]
        self._seen = 0
        self._failed: set[State] = set()
        self._cheapest: dict[State, Chosen | None] = {}

    def _occupied_ms(self, node: Node, start: int, end: int) -> float:
        hop_ms = node.hop_ms if self._stages > 1 else 0.0
        return self._slices.step_ms(node, start, end) + hop_ms

    def _furthest(self, node: Node, start: int) -> int:
        """The last border that a stage on this node can reach from `start`; `start` if it can hold nothing.

        Time and memory grow with the end, so every border before it can be reached as well.
        """
        end = start
        while end < self._slices.blocks and self._allows(node, start, end + 1):
            end += 1
        return end

    def _allows(self, node: Node, start: int, end: int) -> bool:
        in_time = self._occupied_ms(node, start, end) <= self._limit_ms
        return in_time and self._slices.need_bytes(start, end) <= node.memory_bytes

    def _steps(self, state: State) -> Iterator[tuple[int, int]]:
        """(node, end) of every stage that can come next, if what is left could still be placed: the fastest
        nodes first, and of each the longest slice first."""
        stage, start, used = state
        left = self._stages - stage - 1
        for number in self._choices[stage]:
            if number in used:
                continue
            last = min(self._reach[number][start], self._slices.blocks - left)
            others = (most for other, most in enumerate(self._most) if other != number and other not in used)
            room = sum(sorted(others, reverse=True)[:left])
            for end in range(last, max(start, self._slices.blocks - room - 1), -1):
                yield number, end

    @property
    def _is_cut_short(self) -> bool:
        return len(self._nodes) > EXACT_NODES and self._seen > MAX_STATES

    def _exhausted(self) -> bool:
        self._seen += 1
        return self._is_cut_short

    def first(self, state: State = (0, 0, frozenset())) -> tuple[StagePlacement, ...] | None:
        """Any split within the limit."""
        stage, start, used = state
        if stage == self._stages:
            return () if start == self._slices.blocks else None
        if state in self._failed or self._exhausted():
            return None
        for number, end in self._steps(state):
            rest = self.first((stage + 1, end, used | {number}))
            if rest is not None:
                return (StagePlacement(self._nodes[number], start, end), *rest)
        self._failed.add(state)
        return None

    def cheapest(self) -> tuple[StagePlacement, ...] | None:
        """The split within the limit that takes the least time for a token; None where that is too long a
        search."""
        chosen = self._cheapest_from((0, 0, frozenset()))
        return None if chosen is None or self._is_cut_short else chosen[1]

    def _cheapest_from(self, state: State) -> Chosen | None:
        stage, start, used = state
        if stage == self._stages:
            return ((0.0, 0.0), ()) if start == self._slices.blocks else None
        if state in self._cheapest or self._exhausted():
            return self._cheapest.get(state)
        best: Chosen | None = None
        for number, end in self._steps(state):
            rest = self._cheapest_from((stage + 1, end, used | {number}))
            if rest is not None:
                node = self._nodes[number]
                ms = self._occupied_ms(node, start, end)
                cost = (round(ms + rest[0][0], NANOSECOND_DIGITS), ms * ms + rest[0][1])
                if best is None or cost < best[0]:
                    best = (cost, (StagePlacement(node, start, end), *rest[1]))
        self._cheapest[state] = best
        return best
