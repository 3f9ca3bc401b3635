"""The nodes that each stage may be on: those that a user named, or any."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import InvalidRequest
from schemas.pipelines.plan import PipelinePlan
from services.router.placement.candidates import Offer, check_free, fastest_on


def assigned(
    names: Sequence[str], offers: Sequence[Offer], plans: Sequence[PipelinePlan]
) -> tuple[Offer, ...]:
    """The offers that instances or hosts, named for the stages in order, stand for.

    A host stands for its fastest instance that is not named itself. Raises InvalidRequest for a name that is
    not known, and for an instance that holds a stage of another model.
    """
    known = {offer.instance: offer for offer in offers}
    free = [offer for offer in offers if offer.instance not in names]
    chosen = []
    for name in names:
        offer = known.get(name) or fastest_on(name, free)
        if offer is None:
            raise _unknown(name, offers)
        check_free(offer, plans)
        chosen.append(offer)
    return tuple(chosen)


def _unknown(name: str, offers: Sequence[Offer]) -> InvalidRequest:
    nodes = tuple(sorted(offer.instance for offer in offers))
    hosts = sorted({offer.lease.host for offer in offers})
    model = offers[0].model.name
    return InvalidRequest(
        f"assign: no node {name!r} offers {model}; nodes: {', '.join(nodes)}; hosts: {', '.join(hosts)}",
        field="assign",
        known=nodes,
    )
