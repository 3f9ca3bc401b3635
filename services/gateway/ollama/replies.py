"""Replies of Ollama's interface: JSON objects, lines of JSON, and errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from schemas.errors import ChoirError


def line(fields: Mapping[str, Any]) -> bytes:
    """One line of a stream."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def error_reply(status: int, error: ChoirError) -> Response:
    """A text under `error`: some of Ollama's clients read nothing else."""
    return JSONResponse({"error": error.message}, status)


def error_line(error: ChoirError) -> bytes:
    """The last line of a stream that has failed."""
    return line({"error": error.message})
