"""How the interface for operators says things: JSON, and errors with their codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from schemas.errors import ChoirError
from services.gateway.http.errors import words_of

JSON = "application/json"


def json_reply(
    fields: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON object."""
    return Response(to_json(fields), status, headers, JSON)


def error_body(error: ChoirError) -> dict[str, Any]:
    """The error as the mesh has it, in the words for the current caller: its code, its message, the field."""
    body = error.body().model_copy(update={"message": words_of(error)})
    return {"error": body.model_dump(exclude_none=True)}


def error_reply(status: int, error: ChoirError) -> Response:
    """The same as a reply."""
    return json_reply(error_body(error), status)
