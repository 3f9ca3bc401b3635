"""A line of a batch: what is asked, and what came of it."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import Field
from pydantic_core import to_json

from schemas.errors import ChoirError, InvalidRequest
from schemas.requests.files import BatchFault
from services.gateway.http.body import Body, checked, parse_object
from services.gateway.http.errors import words_of
from services.gateway.openai.replying.error import CODES

ID_LENGTH = 24
LINE_ROOM = 8_192
"""What a line may have beside its body."""


class Line(Body):
    """One request of a batch."""

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


def read_line(data: bytes, number: int, endpoint: str, longest: int) -> Line | BatchFault:
    """A line of the input, counted from 1, or what is wrong with it: also where it has more than `longest`
    bytes."""
    try:
        if len(data) > longest:
            raise InvalidRequest(f"the line has more than {longest} bytes: max_body_bytes of [gateway]")
        line = checked(parse_object(data), Line)
    except InvalidRequest as error:
        return BatchFault(code="invalid_json_line", message=error.message, line=number, param=error.field)
    if line.url != endpoint:
        return BatchFault(
            code="mismatched_url",
            message=f"url: this batch asks {endpoint}, and the line {line.url[:80]}",
            line=number,
            param="url",
        )
    return line


def answered(batch_id: str, custom_id: str, request_id: str, status: int, body: Any) -> bytes:
    """A line of the output: a reply, whatever it says."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _line(batch_id, custom_id, response, None)


def unanswered(batch_id: str, custom_id: str, error: ChoirError) -> bytes:
    """A line of the output for a request without a reply."""
    told = {"code": CODES.get(error.code, error.code), "message": words_of(error)}
    return _line(batch_id, custom_id, None, told)


def _line(batch_id: str, custom_id: str, response: dict[str, Any] | None, error: Any) -> bytes:
    said = hashlib.sha256(f"{batch_id}\n{custom_id}".encode()).hexdigest()[:ID_LENGTH]
    line = {"id": f"batch_req_{said}", "custom_id": custom_id, "response": response, "error": error}
    return to_json(line) + b"\n"
