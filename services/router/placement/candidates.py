"""The nodes that could hold a stage of a model: read from the leases, and checked to have the same model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.errors import InvalidRequest, UnknownModel
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shardable, StageOffer
from services.router.placement.cost_model import Memory, Node

UNMEASURED_LAYER_MS = 1.0
"""Where no node has measured its speed, layers are counted: any number does."""
SHOWN_SHA256 = 12
SHOWN_PROBLEMS = 3

Identity = tuple[str, str, int, str]


@dataclass(frozen=True)
class Candidate:
    """A live instance that can load any slice of a model."""

    lease: NodeLease
    stage: StageOffer
    model: Shardable

    @property
    def instance(self) -> str:
        """The instance that offers it."""
        return self.lease.instance

    @property
    def identity(self) -> Identity:
        """The properties that all stages of a pipeline share; the last is the version of Choir."""
        model = self.model
        return model.sha256, model.architecture, model.layers, self.lease.version


@dataclass(frozen=True)
class NodePool:
    """Nodes for the stages of one model. `host_bytes` is what the stages on a host, or on its GPUs, can take
    together; `measured` says whether any of them knows its speed."""

    model: Shardable
    nodes: tuple[Node, ...]
    host_bytes: Mapping[Memory, int]
    measured: bool

    def node(self, instance: str) -> Node | None:
        """The node of an instance."""
        return next((node for node in self.nodes if node.instance == instance), None)


def candidates_of(model: str, leases: Iterable[NodeLease]) -> tuple[Candidate, ...]:
    """Every ready instance that offers a model, in the order of the leases. One that is cordoned offers no
    more than the stage that it holds, and nothing when it is drained."""
    return tuple(
        Candidate(lease, lease.stage, offered)
        for lease in leases
        if lease.stage is not None and lease.state == "ready"
        if lease.cordon is None or (lease.cordon == "cordon" and lease.stage.held is not None)
        for offered in lease.stage.models
        if offered.name == model
    )


def require_candidates(model: str, leases: Sequence[NodeLease]) -> tuple[Candidate, ...]:
    """candidates_of(), at least one. UnknownModel names the models that there are, and says why stages
    offer none."""
    candidates = candidates_of(model, leases)
    if candidates:
        return candidates
    known = sorted({m.name for lease in leases if lease.stage is not None for m in lease.stage.models})
    broken = [
        f". {lease.instance} offers none: {lease.problem.message}"
        for lease in leases
        if lease.stage is not None and lease.problem is not None
    ]
    raise UnknownModel(
        f"model: no live stage service offers {model!r}; offered: {', '.join(known) or 'none'}"
        f"{''.join(broken[:SHOWN_PROBLEMS])}. "
        "A host offers a model with a section [[stages]] in its choir.toml",
        field="model",
        known=tuple(known),
    )


def without_taken(candidates: Iterable[Candidate], plans: Iterable[PipelinePlan]) -> tuple[Candidate, ...]:
    """Those that hold no stage of another model's pipeline."""
    taken = _taken(plans)
    return tuple(
        candidate
        for candidate in candidates
        if taken.get(candidate.instance, candidate.model.name) == candidate.model.name
    )


def preferred(candidates: Sequence[Candidate], stages: int | None) -> Sequence[Candidate]:
    """Those that `within_cores` keeps, or all where these are fewer than the stages that somebody wants."""
    kept = within_cores(candidates)
    return kept if stages is None or len(kept) >= stages else candidates


def within_cores(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Of each host only the fastest instances, as many as its cores have room for and at least one.

    More of them would take turns, and each be slower than it has measured. The others are standbys.
    """
    threads: Counter[str] = Counter()
    kept = set()
    for candidate in sorted(candidates, key=_slowness):
        host, cores = candidate.lease.host, candidate.stage.cores
        if not threads[host] or cores is None or threads[host] + candidate.stage.threads <= cores:
            threads[host] += candidate.stage.threads
            kept.add(candidate.instance)
    return tuple(candidate for candidate in candidates if candidate.instance in kept)


def fastest_on(host: str, candidates: Iterable[Candidate]) -> Candidate | None:
    """The fastest of the instances on a host."""
    return min(
        (candidate for candidate in candidates if candidate.lease.host == host), key=_slowness, default=None
    )


def _slowness(candidate: Candidate) -> tuple[float, str]:
    """Sort key of candidates, the fastest first; unmeasured speeds come last."""
    return candidate.model.layer_ms or float("inf"), candidate.instance


def check_free(candidate: Candidate, plans: Iterable[PipelinePlan]) -> None:
    """Raises InvalidRequest for an instance that holds a stage of another model's pipeline."""
    holder = _taken(plans).get(candidate.instance, candidate.model.name)
    if holder != candidate.model.name:
        raise InvalidRequest(
            f"assign: {candidate.instance} holds a stage of {holder}; take another node, or end that "
            f"pipeline with `choir shard {holder} --remove`",
            field="assign",
        )


def _taken(plans: Iterable[PipelinePlan]) -> dict[str, str]:
    return {stage.instance: plan.model for plan in plans for stage in plan.stages}


def check_same(candidates: Sequence[Candidate]) -> None:
    """Raises InvalidRequest, naming who has what, unless all candidates are of one file and one version."""
    groups: dict[Identity, list[str]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.identity, []).append(candidate.instance)
    if len(groups) == 1:
        return
    told = "; ".join(
        f"{', '.join(names)}: {_differing_parts(identity, groups)}" for identity, names in groups.items()
    )
    raise InvalidRequest(
        f"model: the nodes do not offer the same thing under this name ({told}): give all of them the same "
        "file and the same version of Choir, or name those that go together with --assign",
        field="model",
    )


def _differing_parts(identity: Identity, groups: Collection[Identity]) -> str:
    """The parts in which one of several identities differs from the others."""
    sha256, architecture, layers, version = identity
    words = (f"sha256 {sha256[:SHOWN_SHA256]}", architecture, f"{layers} layers", f"Choir {version}")
    differs = [len({other[place] for other in groups}) > 1 for place in range(len(words))]
    return " ".join(word for word, shown in zip(words, differs, strict=True) if shown)


def pool_of(candidates: Sequence[Candidate]) -> NodePool:
    """The nodes of candidates that are of the same model.

    A node that has not measured its speed counts as the slowest one that has; the context is the shortest
    that one of them makes room for. Instances of one host with as many threads are equally fast: the shortest
    time that one of them has measured holds, since what else runs only makes times longer.
    """
    candidates = _alike_on_hosts(candidates)
    known = [candidate.model for candidate in candidates if candidate.model.layer_ms > 0]
    slowest = max(known, key=lambda model: model.layer_ms, default=None)
    nodes = [_node(candidate) for candidate in candidates]
    if slowest is None:
        nodes = [replace(node, layer_ms=UNMEASURED_LAYER_MS, last_ms=0.0, hop_ms=0.0) for node in nodes]
    else:
        nodes = [
            node if node.layer_ms else replace(node, layer_ms=slowest.layer_ms, last_ms=slowest.last_ms)
            for node in nodes
        ]
    context_tokens = min(candidate.model.context_tokens for candidate in candidates)
    model = candidates[0].model.model_copy(update={"context_tokens": context_tokens})
    return NodePool(model, tuple(nodes), _host_bytes(candidates), measured=slowest is not None)


def _alike_on_hosts(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, those of one host and as many threads with the same speed; GPUs are another matter."""
    groups: dict[tuple[str, int, bool], list[Shardable]] = {}
    for candidate in candidates:
        if candidate.model.layer_ms > 0:
            groups.setdefault(_kind(candidate), []).append(candidate.model)
    best = {
        key: {
            "layer_ms": min(model.layer_ms for model in models),
            "last_ms": min(model.last_ms for model in models),
            "step_costs": min(models, key=lambda model: model.layer_ms).step_costs,
        }
        for key, models in groups.items()
    }
    return [
        replace(candidate, model=candidate.model.model_copy(update=best[key]))
        if (key := _kind(candidate)) in best and candidate.model.layer_ms > 0
        else candidate
        for candidate in candidates
    ]


def _kind(candidate: Candidate) -> tuple[str, int, bool]:
    """What is equally fast."""
    return candidate.lease.host, candidate.stage.threads, candidate.stage.gpu_bytes is not None


def _node(candidate: Candidate) -> Node:
    return Node(
        candidate.instance,
        candidate.lease.host,
        candidate.model.layer_ms,
        candidate.model.last_ms,
        candidate.stage.hop_ms,
        candidate.stage.memory_bytes,
        candidate.stage.threads,
        candidate.stage.cores,
        candidate.stage.gpu_bytes is not None,
        candidate.model.step_costs,
    )


def _host_bytes(candidates: Iterable[Candidate]) -> dict[Memory, int]:
    """Free memory of each host and the memory of its stages, and all that its GPUs have; at least the memory
    that one of them offers."""
    hosts: dict[Memory, list[Candidate]] = {}
    for candidate in candidates:
        hosts.setdefault(_node(candidate).memory, []).append(candidate)
    return {memory: _one_host_bytes(group) for memory, group in hosts.items()}


def _one_host_bytes(candidates: Sequence[Candidate]) -> int:
    if any(candidate.stage.gpu_bytes is not None for candidate in candidates):
        return max(candidate.stage.gpu_bytes or 0 for candidate in candidates)
    free = min(candidate.lease.host_memory_free_bytes for candidate in candidates)
    held = sum(candidate.lease.memory_used_bytes for candidate in candidates)
    return max(free + held, *(candidate.stage.memory_bytes for candidate in candidates))
