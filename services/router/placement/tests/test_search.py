"""The search for the best split, against trying everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.placement.cost_model import STAGE_OVERHEAD_BYTES, Node, Slices, Split, StagePlacement
from services.router.placement.search import best_split

CPU_LIMIT_S = 60.0
"""Many times what it takes."""
MILLISECONDS = st.sampled_from((0.5, 1.0, 1.0, 2.0, 3.5, 10.0))


def everything(slices: Slices, nodes: tuple[Node, ...], stages: int) -> Iterator[Split]:
    """Every split into so many stages that has room."""
    for cuts in combinations(range(1, slices.blocks), stages - 1):
        for chosen in permutations(nodes, stages):
            ranges = pairwise((0, *cuts, slices.blocks))
            split = Split(
                slices,
                tuple(
                    StagePlacement(node, start, end)
                    for node, (start, end) in zip(chosen, ranges, strict=True)
                ),
            )
            if all(slices.need_bytes(s.start, s.end) <= s.node.memory_bytes for s in split.placements):
                yield split


@st.composite
def models(draw: st.DrawFn) -> Slices:
    """Small models with layers of unequal sizes and cuts that are not everywhere."""
    layers = draw(st.integers(2, 7))
    cuts = draw(st.sets(st.integers(1, layers - 1)))
    sizes = draw(st.lists(st.integers(0, 5), min_size=layers, max_size=layers))
    first, last = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    return Slices((0, *sorted(cuts), layers), tuple(sizes), first, last, draw(st.integers(0, 1)), 2)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Node, ...]:
    """Up to four nodes, some of them small."""
    return tuple(
        Node(
            f"n{number}",
            "host",
            draw(MILLISECONDS),
            draw(MILLISECONDS),
            draw(st.sampled_from((0.0, 0.25, 1.5))),
            STAGE_OVERHEAD_BYTES + draw(st.integers(0, 40)),
        )
        for number in range(draw(st.integers(1, 4)))
    )


@settings(max_examples=300, deadline=None)
@given(models(), fleets(), st.integers(1, 4))
def test_no_split_is_better_than_the_one_found(slices: Slices, nodes: tuple[Node, ...], stages: int) -> None:
    best = min(
        ((split.slowest_ms, split.total_ms) for split in everything(slices, nodes, stages)), default=None
    )
    found = best_split(slices, [nodes] * stages)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert found.slowest_ms == best[0] and found.total_ms == pytest.approx(best[1])
    assert found.placements[0].start == 0 and found.placements[-1].end == slices.blocks
    assert all(a.end == b.start for a, b in pairwise(found.placements))
    assert len({placement.node for placement in found.placements}) == stages
    assert all(slices.need_bytes(s.start, s.end) <= s.node.memory_bytes for s in found.placements)


@settings(max_examples=100, deadline=None)
@given(models(), fleets())
def test_an_order_of_nodes_is_kept_and_cut_as_well_as_can_be(slices: Slices, nodes: tuple[Node, ...]) -> None:
    same_order = [
        s for s in everything(slices, nodes, len(nodes)) if tuple(x.node for x in s.placements) == nodes
    ]
    best = min(((split.slowest_ms, split.total_ms) for split in same_order), default=None)
    found = best_split(slices, [[node] for node in nodes])
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        assert tuple(placement.node for placement in found.placements) == nodes
        assert found.slowest_ms == best[0] and found.total_ms == pytest.approx(best[1])


@pytest.mark.parametrize("count", [8, 20])
def test_many_unequal_nodes_with_little_memory_take_no_long_search(count: int) -> None:
    # Given 80 layers on nodes that differ in speed, and in memory, of which there is hardly enough
    slices = Slices(tuple(range(81)), tuple(40 + 7 * (i % 3) for i in range(80)), 200, 300, 0, 0)
    nodes = [
        Node(f"n{i}", "h", 1 + i / 10, 2.0, 0.1, STAGE_OVERHEAD_BYTES + 400 + 60 * (i % 8))
        for i in range(count)
    ]
    # When it is split over all of them, then all of it has room
    started_s = time.process_time()
    found = best_split(slices, [nodes] * count)
    assert time.process_time() - started_s < CPU_LIMIT_S
    assert found is not None
    assert all(slices.need_bytes(s.start, s.end) <= s.node.memory_bytes for s in found.placements)
