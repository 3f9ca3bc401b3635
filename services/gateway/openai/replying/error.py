"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from schemas.errors import ChoirError, ErrorCode, Undecided
from services.gateway.http.errors import status_of, words_of

SERVER_FAULT = 500
CODES: Mapping[ErrorCode, str] = {
    "context_exceeded": "context_length_exceeded",
    "unknown_model": "model_not_found",
    "overloaded": "rate_limit_exceeded",
}
"""What OpenAI calls the same; its clients look at these."""
TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_object(error: ChoirError, status: int | None = None) -> dict[str, Any]:
    """The body of an error, also in a stream. With `answers`, no field of OpenAI's, where an ensemble is
    undecided."""
    status = status_of(error) if status is None else status
    kind = TYPES.get(status, "invalid_request_error" if status < SERVER_FAULT else "server_error")
    code = CODES.get(error.code, error.code)
    body: dict[str, Any] = {"message": words_of(error), "type": kind, "param": error.field, "code": code}
    if isinstance(error, Undecided) and error.result is not None:
        body["answers"] = [{"model": each.model, "content": each.text} for each in error.result.answers]
    return {"error": body}


def error_response(status: int, error: ChoirError) -> Response:
    """The reply to a request that failed."""
    return Response(to_json(error_object(error, status)), status, media_type="application/json")
