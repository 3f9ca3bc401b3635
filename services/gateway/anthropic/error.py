"""Errors as Anthropic's clients read them: `{"type": "error", "error": {"type", "message"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from schemas.errors import ChoirError
from services.gateway.http.errors import status_of, words_of

SERVER_FAULT = 500
TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


def error_object(error: ChoirError, status: int | None = None) -> dict[str, Any]:
    """The body of an error, also in a stream."""
    status = status_of(error) if status is None else status
    kind = TYPES.get(status, "invalid_request_error" if status < SERVER_FAULT else "api_error")
    return {"type": "error", "error": {"type": kind, "message": _message(error)}}


def _message(error: ChoirError) -> str:
    """Its clients shorten a conversation when they read that the prompt is too long."""
    words = words_of(error)
    return f"prompt is too long: {words}" if error.code == "context_exceeded" else words


def error_response(status: int, error: ChoirError) -> Response:
    """The reply to a request that failed."""
    return Response(to_json(error_object(error, status)), status, media_type="application/json")
