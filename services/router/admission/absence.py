"""Says why a model that is known cannot be asked at present. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.nodes.lease import NodeLease
from schemas.nodes.workers import Worker


def why_absent(model: str, nodes: Iterable[NodeLease], registered: Iterable[Worker]) -> str | None:
    """The reason why each instance with the model does not serve it; None if no instance has it."""
    reasons = list(_reasons(model, tuple(nodes), registered))
    return "; ".join(reasons) or None


def _reasons(model: str, nodes: tuple[NodeLease, ...], registered: Iterable[Worker]) -> Iterator[str]:
    used: set[str] = set()
    for node in nodes:
        for served in node.models:
            if served.worker is not None:
                used.add(served.worker.id)
            if served.name != model:
                continue
            if served.problem is not None:
                yield served.problem.message
            elif node.state != "ready":
                yield f"{node.instance} has it and is {node.state}"
    for worker in registered:
        if worker.name == model and worker.id not in used:
            where = f" (agents of host {worker.only_on} alone may)" if worker.only_on else ""
            yield f"worker {worker.id} at {worker.url} is registered, and no agent uses it{where}"
