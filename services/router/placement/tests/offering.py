"""Leases of stage services that offer a model, as tests of the planner want them."""

from __future__ import annotations

from typing import Any

from schemas.errors import InvalidRequest
from schemas.nodes.lease import NodeLease, NodeState
from schemas.pipelines.plan import Shard, Shardable, StageHeld, StageOffer, StepCost
from services.router.placement.candidates import candidates_of, pool_of
from services.router.placement.cost_model import STAGE_OVERHEAD_BYTES
from services.router.placement.planner import Decision, decide

MODEL = "large"
SHA256 = "a" * 64
LAYERS = 12
GB = 1_000_000_000
LAYER_BYTES = 100_000_000


def shardable(name: str = MODEL, *, layer_ms: float = 1.0, **fields: Any) -> Shardable:
    """A model of twelve layers of 100 MB that may be cut everywhere; a token takes 13 ms at 1 ms a layer."""
    layers = fields.pop("layers", LAYERS)
    defaults: dict[str, Any] = {
        "sha256": SHA256,
        "architecture": "llama",
        "cuts": tuple(range(1, layers)),
        "width": 64,
        "context_tokens": 1000,
        "layer_bytes": (LAYER_BYTES,) * layers,
        "first_bytes": LAYER_BYTES,
        "last_bytes": LAYER_BYTES,
        "cell_bytes": 1000,
        "last_ms": layer_ms,
    }
    return Shardable(name=name, layers=layers, layer_ms=layer_ms, **(defaults | fields))


def lease(
    instance: str,
    model: Shardable | None = None,
    *,
    host: str = "",
    memory_bytes: int = 4 * GB,
    hop_ms: float = 0.1,
    held: StageHeld | None = None,
    state: NodeState = "ready",
    version: str = "1",
    host_free_bytes: int = 64 * GB,
    cores: int | None = None,
    gpu_bytes: int | None = None,
    **fields: Any,
) -> NodeLease:
    """A stage service, on a host of its own unless told otherwise."""
    stage = StageOffer(
        models=(model or shardable(),),
        memory_bytes=memory_bytes,
        threads=1,
        cores=cores,
        hop_ms=hop_ms,
        held=held,
        gpu_bytes=gpu_bytes,
    )
    return NodeLease(
        service="shard_stage",
        instance=instance,
        host=host or f"host-{instance}",
        pid=1,
        version=version,
        state=state,
        started_at_s=0,
        seen_at_s=0,
        host_memory_free_bytes=host_free_bytes,
        stage=stage,
        **fields,
    )


def speeds(*layer_ms: float, **fields: Any) -> list[NodeLease]:
    """Nodes a, b, c, ... with these speeds."""
    return [
        lease(name, shardable(layer_ms=ms), **fields) for name, ms in zip("abcdefgh", layer_ms, strict=False)
    ]


ONE_NODE = {1: 44.0, 2: 29.0, 4: 50.0, 8: 78.0, 16: 96.0, 32: 108.0}
"""Tokens per second of a core with a whole model of 24 layers, by the sequences in a step: once measured."""


def two_cores(*, slower: float, hosts: tuple[str, str] = ("here", "here")) -> list[NodeLease]:
    """Two nodes that have measured ONE_NODE of the 24 layers; steps take so many times longer while the other
    core of their host computes as well."""
    layers = 24
    costs = [(rows, max(1.0, rows / rate * ONE_NODE[1])) for rows, rate in ONE_NODE.items() if rows <= 16]
    model = shardable(
        layers=layers,
        layer_ms=1e3 / ONE_NODE[1] / (layers + 1),
        step_costs=tuple(StepCost(rows=rows, alone=cost, beside=slower * cost) for rows, cost in costs),
    )
    return [
        lease(name, model, host=host, cores=2, hop_ms=0.4, memory_bytes=64 * GB)
        for name, host in zip("ab", hosts, strict=True)
    ]


def decided(leases: list[NodeLease], **spec: Any) -> Decision:
    """What the planner makes of these nodes; eight slots unless told otherwise."""
    return decide(Shard(model=MODEL, **spec), pool_of(candidates_of(MODEL, leases)))


def layers_of(decision: Decision) -> dict[str, int]:
    """How many layers each node gets, in order."""
    split = decision.split
    return {
        placement.node.instance: split.slices.layers(placement.start, placement.end)
        for placement in split.placements
    }


def refusal(leases: list[NodeLease], **spec: Any) -> InvalidRequest:
    """The error that the planner raises."""
    try:
        decision = decided(leases, **spec)
    except InvalidRequest as error:
        return error
    raise AssertionError(f"not refused: {layers_of(decision)}")


def stage_memory(layers: int, *, first: bool = False, last: bool = False, slots: int = 8) -> int:
    """What a stage of the model above takes, counted by hand."""
    cache = layers * 1000 * slots * 1000
    return (layers + first + last) * LAYER_BYTES + cache + STAGE_OVERHEAD_BYTES
