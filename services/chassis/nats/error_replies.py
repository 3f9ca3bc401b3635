"""Errors as replies: the headers by which any client of the services API knows one, and the refusal of a full
service as it is published.
"""

from __future__ import annotations

from schemas import subjects
from schemas.errors import ChoirError, ErrorCode, Overloaded
from schemas.replies import ErrorReply

HTTP_LIKE: dict[ErrorCode, str] = {
    "invalid_request": "400",
    "unknown_strategy": "400",
    "query_failed": "400",
    "query_refused": "403",
    "context_exceeded": "400",
    "unknown_model": "404",
    "unknown_request": "404",
    "unknown_worker": "404",
    "unauthenticated": "401",
    "not_permitted": "403",
    "not_ready": "409",
    "request_id_conflict": "409",
    "cancelled": "410",
    "result_evicted": "410",
    "payload_too_large": "413",
    "overloaded": "429",
    "broker_unavailable": "503",
    "pull_failed": "502",
    "no_room": "507",
    "unsupported_version": "501",
    "deadline_exceeded": "504",
}
"""The `Nats-Service-Error-Code` of each error; 500 for the others."""

FULL = Overloaded("too many requests wait here, or were refused just now: try again later", retry_after_s=1.0)
"""To whoever has no place."""


def error_headers(error: ChoirError) -> dict[str, str]:
    """The two headers by which any client of the services API knows an error."""
    return {
        subjects.ERROR_HEADER: " ".join(error.message.split()).encode("ascii", "replace").decode()[:512],
        subjects.ERROR_CODE_HEADER: HTTP_LIKE.get(error.code, "500"),
    }


def _after_inbox(error: ChoirError) -> bytes:
    """An error reply as it is published, but for where."""
    reply = ErrorReply(error=error.body())
    headers = {subjects.KIND_HEADER: reply.kind} | error_headers(error)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head, body = f"NATS/1.0\r\n{lines}\r\n".encode(), reply.to_bytes()
    return b"%d %d\r\n%s%s\r\n" % (len(head), len(head) + len(body), head, body)


REFUSAL = _after_inbox(FULL)
"""The same, as it is published, but for where."""
