"""Where a further copy of a model is best: by the disk, the memory and what runs there.

Pure: takes leases, and says in which order hosts are to make one. All stores compute the same order from the
same leases. A host is able if an agent loads models from its store and has memory for this one, or if a stage
of it offers this very file: a stage holds as many layers as it has room for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import CopyPlace, StoredModel


def places_for(
    model: StoredModel, free: Mapping[str, str], leases: Sequence[NodeLease]
) -> tuple[CopyPlace, ...]:
    """The stores `free` (each with its host), the best place first, those without room on their disk last."""
    places = (_place(model, instance, host, leases) for instance, host in free.items())
    return tuple(sorted(places, key=lambda place: (_rank(place), _lot(model, place.instance))))


def _place(model: StoredModel, instance: str, host: str, leases: Iterable[NodeLease]) -> CopyPlace:
    leases = tuple(leases)
    place = CopyPlace(instance=instance, host=host)
    own = next((lease for lease in leases if lease.instance == instance), None)
    if own is not None and own.store is not None and own.store.free_bytes <= model.size_bytes:
        return place.model_copy(update={"lacks": "disk", "has_bytes": own.store.free_bytes})
    if own is not None and any(_offers(lease, model) for lease in leases if _same_host(lease, own)):
        return place
    budgets = [
        lease.loads.budget_bytes
        for lease in leases
        if lease.loads is not None
        and lease.loads.store == instance
        and (not lease.loads.models or model.name in lease.loads.models)
    ]
    if not budgets:
        return place.model_copy(update={"lacks": "server"})
    if max(budgets) < _taken_bytes(model, leases):
        return place.model_copy(update={"lacks": "memory", "has_bytes": max(budgets)})
    return place


def _taken_bytes(model: StoredModel, leases: Iterable[NodeLease]) -> int:
    """What it takes when it is loaded: with its cache, the least of what agents say that have it on demand
    now; the weights alone where none has it."""
    told = (
        served.on_demand.memory_bytes
        for lease in leases
        for served in lease.models
        if served.name == model.name and served.on_demand is not None
    )
    return max(model.size_bytes, min(told, default=0))


def _same_host(one: NodeLease, other: NodeLease) -> bool:
    return (one.host, one.host_id) == (other.host, other.host_id)


def _offers(lease: NodeLease, model: StoredModel) -> bool:
    """Whether a stage could hold layers of this very model."""
    known = model.whole_sha256
    return lease.stage is not None and any(one.sha256 == known for one in lease.stage.models)


def _rank(place: CopyPlace) -> int:
    if place.lacks is None:
        return 0
    return 2 if place.lacks == "disk" else 1


def _lot(model: StoredModel, instance: str) -> bytes:
    """Another order for each model, so that not one host makes all copies."""
    return hashlib.sha256(f"{model.name} {instance}".encode()).digest()
