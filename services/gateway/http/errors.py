"""What HTTP clients are told of an error: status, headers and words. The body is the dialect's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from schemas.errors import ChoirError, ErrorBody, ErrorCode, MeshUnreachable
from services.gateway.access.caller import current_caller

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

ADDRESS = re.compile(r"https?://[^\s,;]+")
OF_SERVERS: Mapping[ErrorCode, str] = {
    "worker_failed": "a server of this model failed; `choir trace` has the reason, for those who observe",
    "generation_failed": "the server of this model could not answer this request",
    "no_answers": "no member answered; `choir trace` has the reasons, for those who observe",
    "context_exceeded": "the prompt does not fit into the context of the server of this model",
}
"""What is said where an error tells what an external server has said."""

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


def sees_servers() -> bool:
    """Whether the current caller is told where a server of workers is, and what it has said."""
    key = current_caller.get().key
    return key is None or "observe" in key.scopes


def line_of(text: str) -> str:
    """What the current caller is told of a line of a request's history, which may be that of an error."""
    return text if sees_servers() or not ADDRESS.search(text) else OF_SERVERS["worker_failed"]


def words_of(error: ChoirError | ErrorBody) -> str:
    """What the current caller is told of an error. Where a server of workers is, and what it has said, is for
    those who may observe the mesh."""
    if sees_servers() or not ADDRESS.search(error.message):
        return error.message
    if (told := OF_SERVERS.get(error.code)) is not None:
        return told
    of_sampling = (error.field or "").startswith("sampling")
    return ADDRESS.sub("the server of this model", error.message) if of_sampling else error.message
