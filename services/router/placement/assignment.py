"""The nodes that each stage may be on: those that a user named, or any."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import InvalidRequest
from schemas.pipelines.plan import PipelinePlan
from services.router.placement.candidates import Candidate, check_free, fastest_on


def assigned(
    names: Sequence[str], candidates: Sequence[Candidate], plans: Sequence[PipelinePlan]
) -> tuple[Candidate, ...]:
    """The candidates that instances or hosts, named for the stages in order, stand for.

    A host stands for its fastest instance that is not named itself. Raises InvalidRequest for a name that is
    not known, and for an instance that holds a stage of another model.
    """
    known = {candidate.instance: candidate for candidate in candidates}
    free = [candidate for candidate in candidates if candidate.instance not in names]
    chosen = []
    for name in names:
        candidate = known.get(name) or fastest_on(name, free)
        if candidate is None:
            raise _unknown(name, candidates)
        check_free(candidate, plans)
        chosen.append(candidate)
    return tuple(chosen)


def _unknown(name: str, candidates: Sequence[Candidate]) -> InvalidRequest:
    nodes = tuple(sorted(candidate.instance for candidate in candidates))
    hosts = sorted({candidate.lease.host for candidate in candidates})
    model = candidates[0].model.name
    return InvalidRequest(
        f"assign: no node {name!r} offers {model}; nodes: {', '.join(nodes)}; hosts: {', '.join(hosts)}",
        field="assign",
        known=nodes,
    )
