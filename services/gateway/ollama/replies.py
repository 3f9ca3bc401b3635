"""Replies of Ollama's interface: JSON objects, lines of JSON, and errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from schemas.errors import ChoirError
from services.gateway.http.errors import words_of

JSON = "application/json; charset=utf-8"


def line(fields: Mapping[str, Any]) -> bytes:
    """One line of a stream."""
    return to_json(fields) + b"\n"


def json_reply(
    fields: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """One object."""
    return Response(to_json(fields), status, headers, JSON)


def error_reply(status: int, error: ChoirError) -> Response:
    """A text under `error`: some of Ollama's clients read nothing else."""
    return json_reply({"error": words_of(error)}, status)


def error_line(error: ChoirError) -> bytes:
    """The last line of a stream that has failed."""
    return line({"error": words_of(error)})


def now() -> str:
    """The time in UTC, as Ollama says it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
