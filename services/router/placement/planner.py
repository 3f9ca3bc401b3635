"""The planner of pipelines: what nodes offer and what is wanted give a split, or a refusal.

Pure: takes what nodes offer and what is asked for, gives a split.

A split *only slows the model down* if the fastest node that could hold the whole model is at least as fast
for a single stream, and reaches at least as many tokens per second, as all stages together. It is refused
where somebody asked for that number of stages; `force` has it anyway. Where nobody asked for a number, there
is no split that gains less than LEAST_GAIN at all slots, or that is slower than that one node at any number
of streams from two on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.errors import InvalidRequest
from schemas.pipelines.plan import MAX_STAGES, Shard
from services.router.placement.candidates import NodePool
from services.router.placement.cost_model import (
    MS_PER_S,
    Memory,
    Node,
    Slices,
    Split,
    StagePlacement,
    powers_of_two,
)
from services.router.placement.search import best_split

LEAST_GAIN = 0.1
"""The fewest stages are taken whose throughput is within this share of the best."""
MB = 1e6
SHOWN_CUTS = 12


@dataclass(frozen=True)
class Decision:
    """A split, and what one node with the whole model would take for a token, None if there is none.
    `passed_over` is the best split into more stages, which was weighed and is not worth them."""

    split: Split
    whole_ms: float | None
    whole_node: Node | None
    slots: int
    context_tokens: int
    passed_over: Split | None = None

    @property
    def whole(self) -> Split | None:
        """The whole model on that one node."""
        if self.whole_node is None:
            return None
        slices = self.split.slices
        return Split(slices, (StagePlacement(self.whole_node, 0, slices.blocks),))


def decide(spec: Shard, pool: NodePool, assigned: Sequence[Node] = ()) -> Decision:
    """The best split that meets the specification, on a pool's nodes; stage k on `assigned[k]` if given.

    Raises InvalidRequest, naming the field and the way out, for a number of stages that cannot be, for too
    little memory, and for a split that only slows the model down.
    """
    context_tokens = spec.context_tokens or pool.model.context_tokens
    _check_form(spec, pool, context_tokens)
    slices = Slices.of(pool.model, spec.slots, context_tokens)
    whole_ms, whole_node = _fastest_whole(slices, pool.nodes)
    stages, passed_over = len(assigned) or spec.stages, None
    if stages is None:
        split, passed_over = _fastest_split(slices, pool, spec.slots)
    else:
        _check_stages(stages, slices, pool)
        choices: list[Sequence[Node]] = [(node,) for node in assigned] or [pool.nodes] * stages
        split = split_within_hosts(slices, choices, pool.host_bytes)
    if split is None:
        raise _too_little_memory(spec, slices, pool, stages, context_tokens)
    decision = Decision(split, whole_ms, whole_node, spec.slots, context_tokens, passed_over)
    if pool.measured and not spec.force and only_slows(decision):
        raise _refusal(decision, assigned=bool(assigned))
    return decision


def only_slows(decision: Decision) -> bool:
    """Whether one node with the whole model is better, for one stream and for many."""
    split, whole, slots = decision.split, decision.whole, decision.slots
    if len(split.placements) == 1 or whole is None or split.slowest_ms == 0:
        return False
    return split.total_ms >= whole.total_ms and split.tokens_per_s(slots) <= whole.tokens_per_s(slots)


def _fastest_whole(slices: Slices, nodes: Sequence[Node]) -> tuple[float | None, Node | None]:
    whole = [(ms, node.instance, node) for node in nodes if (ms := slices.whole_ms(node)) is not None]
    if not whole:
        return None, None
    ms, _, node = min(whole, key=lambda entry: entry[:2])
    return ms, node


def _fastest_split(slices: Slices, pool: NodePool, slots: int) -> tuple[Split | None, Split | None]:
    """The fewest stages with (nearly) the most tokens per second, and the best split into more stages that
    was weighed; None for what there is not."""
    splits: list[Split] = []
    best = 0.0
    for stages in range(1, min(slices.blocks, len(pool.nodes), MAX_STAGES) + 1):
        is_told = stages == 2 and pool.measured  # also where it cannot be the best: who asks hears of it
        if (
            splits
            and not is_told
            and not (pool.measured and _could_exceed(best, slices, pool, stages, slots))
        ):
            continue
        split = split_within_hosts(slices, [pool.nodes] * stages, pool.host_bytes)
        if split is not None:
            splits.append(split)
            best = max(best, split.tokens_per_s(slots))
    if splits and len(splits[0].placements) == 1:
        worth = [split for split in splits if not _is_ever_slower(split, splits[0], slots)]
    else:
        worth = splits
    best = max((split.tokens_per_s(slots) for split in worth), default=0.0)
    chosen = next((split for split in worth if split.tokens_per_s(slots) >= best * (1 - LEAST_GAIN)), None)
    more = splits[splits.index(chosen) + 1 :] if chosen is not None else []
    return chosen, max(more, key=lambda split: split.tokens_per_s(slots), default=None)


def _is_ever_slower(split: Split, whole: Split, slots: int) -> bool:
    """Whether a split has fewer tokens per second than one node at any number of streams from two on. A
    single stream is slower in every split, by its hops."""
    streams = powers_of_two(slots)[1:]
    return any(split.tokens_per_s(count) < whole.tokens_per_s(count) for count in streams)


def _could_exceed(tokens_per_s: float, slices: Slices, pool: NodePool, stages: int, slots: int) -> bool:
    """Whether any split into so many stages might: on the fastest nodes, with layers that can be divided at
    will but for one in each stage, the cheapest hops, steps of the cheapest rows, and memory without end."""
    limit_ms = MS_PER_S / tokens_per_s
    most = slots if any(node.costs for node in pool.nodes) else 1
    hop_ms = min(node.hop_ms for node in pool.nodes) / most if stages > 1 else 0.0
    fastest = sorted(node.layer_ms * _cheapest_row(node, most) for node in pool.nodes)[:stages]
    left = float(slices.layers(0, slices.blocks) - stages)
    total_ms = sum(fastest) + stages * hop_ms
    for layer_ms in fastest:
        more = min(left, max(0.0, (limit_ms - hop_ms) / layer_ms - 1))
        left -= more
        total_ms += more * layer_ms
    return left <= 0 and total_ms / slots < limit_ms


def _cheapest_row(node: Node, most: int) -> float:
    """What a row takes at least, in steps of up to `most` rows, over a step of its own."""
    return min(node.cost(rows, beside=False) / rows for rows in (*powers_of_two(most), most))


def split_within_hosts(
    slices: Slices, choices: Sequence[Sequence[Node]], host_bytes: Mapping[Memory, int]
) -> Split | None:
    """The best split in which also the stages of each host together have room there, or on its GPUs.

    Where they have not, each gets an equal part of that memory, and the search begins anew; this is
    the one place where a split may be found that is not the best.
    """
    shares: Counter[Memory] = Counter()
    while True:
        limited = [[_limited(node, shares, host_bytes) for node in group] for group in choices]
        split = best_split(slices, limited)
        if split is None:
            return None
        stages_on = Counter(placement.node.memory for placement in split.placements)
        full = [memory for memory in stages_on if _needed_in(memory, split) > host_bytes[memory]]
        if not full:
            return split
        for memory in full:
            shares[memory] = max(shares[memory] + 1, stages_on[memory])


def _limited(node: Node, shares: Mapping[Memory, int], host_bytes: Mapping[Memory, int]) -> Node:
    if node.memory not in shares:
        return node
    share = host_bytes[node.memory] // shares[node.memory]
    return replace(node, memory_bytes=min(node.memory_bytes, share))


def _needed_in(memory: Memory, split: Split) -> int:
    return sum(split.slices.need_bytes(s.start, s.end) for s in split.placements if s.node.memory == memory)


def _check_form(spec: Shard, pool: NodePool, context_tokens: int) -> None:
    if context_tokens > pool.model.context_tokens:
        raise InvalidRequest(
            f"context_tokens: {spec.model} was made for {pool.model.context_tokens} tokens, "
            f"not {context_tokens}",
            field="context_tokens",
        )
    if spec.dtype == "q8_0" and pool.model.width % 32:
        raise InvalidRequest(
            f"dtype: q8_0 needs a width that is a multiple of 32, and {spec.model} has {pool.model.width}: "
            "take f32 or f16",
            field="dtype",
        )


def _check_stages(stages: int, slices: Slices, pool: NodePool) -> None:
    model = pool.model
    most = min(slices.blocks, MAX_STAGES)
    if stages > most:
        cuts = ", ".join(map(str, model.cuts[:SHOWN_CUTS])) + (
            ", ..." if len(model.cuts) > SHOWN_CUTS else ""
        )
        raise InvalidRequest(
            f"stages: {model.name} has {model.layers} layers and can have 1 to {most} stages, not {stages} "
            f"(a stage may begin at layer {cuts or '0 only'})",
            field="stages",
        )
    if stages > len(pool.nodes):
        names = ", ".join(sorted(node.instance for node in pool.nodes))
        raise InvalidRequest(
            f"stages: {stages} stages need as many nodes, and {len(pool.nodes)} offer {model.name} and are "
            f"free ({names or 'none'}): ask for fewer, or start more with [[stages]]",
            field="stages",
        )


def _too_little_memory(
    spec: Shard, slices: Slices, pool: NodePool, stages: int | None, context_tokens: int
) -> InvalidRequest:
    largest = max(slices.need_bytes(0, slices.blocks), 0)
    cache = slices.cell_bytes * slices.cells * pool.model.layers
    offered = ", ".join(f"{node.instance} {node.memory_bytes / MB:,.0f}" for node in pool.nodes)
    into = f"{stages} stages" if stages else "any number of stages"
    return InvalidRequest(
        f"stages: {spec.model} does not fit into {into} on these nodes: one stage would take "
        f"{largest / MB:,.0f} MB, of which {cache / MB:,.0f} MB are the cache of {spec.slots} sequences of "
        f"{context_tokens} tokens; offered, in MB: {offered}. Take more nodes, fewer slots or "
        "a shorter context",
        field="stages",
    )


def _refusal(decision: Decision, *, assigned: bool) -> InvalidRequest:
    split, field = decision.split, "assign" if assigned else "stages"
    assert decision.whole is not None and decision.whole_node is not None
    return InvalidRequest(
        f"{field}: {len(split.placements)} stages would only slow it down: "
        f"{split.total_ms:.2f} ms a token and {split.tokens_per_s(decision.slots):.0f} tokens/s at most, "
        f"where {decision.whole_node.instance} alone takes {decision.whole_ms:.2f} ms and reaches "
        f"{decision.whole.tokens_per_s(decision.slots):.0f}: ask for fewer stages, or for this all the same "
        "with --force",
        field=field,
    )
