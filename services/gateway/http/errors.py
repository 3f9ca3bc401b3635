"""What HTTP clients are told of an error: its status and its headers. The body is the dialect's."""

from __future__ import annotations

import math
from collections.abc import Mapping

from schemas.errors import ChoirError, ErrorCode, MeshUnreachable

STATUS: Mapping[ErrorCode, int] = {
    "invalid_request": 400,
    "unknown_strategy": 400,
    "context_exceeded": 400,
    "query_failed": 400,
    "document_unreadable": 400,
    "query_refused": 403,
    "unauthenticated": 401,
    "not_permitted": 403,
    "unknown_model": 404,
    "unknown_request": 404,
    "unknown_worker": 404,
    "not_ready": 409,
    "request_id_conflict": 409,
    "configuration": 409,
    "cancelled": 499,
    "result_evicted": 410,
    "payload_too_large": 413,
    "undecided": 422,
    "overloaded": 429,
    "unsupported_version": 501,
    "worker_failed": 502,
    "mesh_unreachable": 503,
    "broker_unavailable": 503,
    "model_unusable": 503,
    "pull_failed": 502,
    "no_room": 503,
    "deadline_exceeded": 504,
}
"""The status of each code; 500 for the others."""

ACCEPTED_AND_FAILED: frozenset[ErrorCode] = frozenset(
    (
        "generation_failed",
        "no_answers",
        "answers_unreadable",
        "undecided",
        "poison_message",
        "deadline_exceeded",
        "internal",
    )
)
"""Errors of work that was done: what is asked again at once would most likely fail again."""

SHOULD_RETRY_HEADER = "x-should-retry"


def stopping() -> ChoirError:
    """What open requests are told by a gateway that stops."""
    return MeshUnreachable("this gateway stops: ask again, another one goes on", retry_after_s=1.0)


def status_of(error: ChoirError) -> int:
    """The HTTP status of an error."""
    return STATUS.get(error.code, 500)


def headers_of(error: ChoirError) -> dict[str, str]:
    """What tells a client when, and whether, to try again: `retry-after` in whole seconds, rounded up."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    if error.code in ACCEPTED_AND_FAILED:
        headers[SHOULD_RETRY_HEADER] = "false"
    return headers
