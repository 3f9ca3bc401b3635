"""Shortens a lease that is too large for the broker, or for a list of all nodes.

First what only people read, then the models that nobody can ask, then models that somebody can.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.errors import ErrorBody, PayloadTooLarge
from schemas.nodes.lease import NodeLease, ServedModel

TEXT_CHARACTERS = 160
LEASE_BYTES = 256 * 1024
"""So that the bucket of leases holds some hundreds of even the largest."""


def fitting(lease: NodeLease, limit_bytes: int) -> NodeLease:
    """The lease, or as much of it as fits: then its `problem` says what is missing, if it has no other."""
    size = len(lease.to_bytes())
    if size <= limit_bytes:
        return lease
    for version, missing in _versions(lease):
        told = _with_problem(version, size, limit_bytes, missing)
        if len(told.to_bytes()) <= limit_bytes:
            return told
    return told


def without_details(lease: NodeLease) -> NodeLease:
    """What a program needs of it: texts are cut, and the graphics processors are left out."""
    return lease.model_copy(
        update={
            "models": tuple(_plain(model) for model in lease.models),
            "problem": cut_error(lease.problem),
            "gpus": (),
        }
    )


def cut_error(error: ErrorBody | None) -> ErrorBody | None:
    """The beginning of what an error says."""
    if error is None or (len(error.message) <= TEXT_CHARACTERS and error.known is None):
        return error
    return error.model_copy(update={"message": error.message[:TEXT_CHARACTERS], "known": None})


def _plain(model: ServedModel) -> ServedModel:
    worker = model.worker
    if worker is not None:
        worker = worker.model_copy(update={"last_error": cut_error(worker.last_error)})
    return model.model_copy(
        update={
            "description": None,
            "worker": worker,
            "problem": cut_error(model.problem),
            "prefixes": (),
        }
    )


def _versions(lease: NodeLease) -> Iterator[tuple[NodeLease, str]]:
    """Ever smaller leases, each with what it lacks."""
    plain = without_details(lease)
    yield plain, "texts"
    usable = tuple(model for model in plain.models if model.problem is None)
    yield plain.model_copy(update={"models": usable}), "texts and unusable models"
    while usable:
        usable = usable[: len(usable) // 2]
        missing = len(lease.models) - len(usable)
        yield plain.model_copy(update={"models": usable}), f"texts and {missing} models"
    yield plain.model_copy(update={"models": (), "stage": None}), "models and the offer to pipelines"


def _with_problem(lease: NodeLease, size: int, limit_bytes: int, missing: str) -> NodeLease:
    if lease.problem is not None:
        return lease
    error = PayloadTooLarge(
        f"the lease would have {size} bytes of at most {limit_bytes}, so {missing} are left out: "
        "let this instance serve fewer models"
    )
    return lease.model_copy(update={"problem": error.body()})
