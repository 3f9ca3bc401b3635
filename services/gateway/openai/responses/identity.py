"""The ids of responses: those of their requests, with a prefix."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from schemas.errors import UnknownRequest
from schemas.message import RequestId
from schemas.requests.responses import ResponseRecord

PREFIX = "resp_"
REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)


def response_id(record: ResponseRecord) -> str:
    """The id that clients know."""
    return f"{PREFIX}{record.ask.request_id}"


def request_of(given: str) -> str:
    """The request behind a response's id. Raises UnknownRequest for what is no such id."""
    try:
        return REQUEST_ID.validate_python(given.removeprefix(PREFIX))
    except ValidationError as error:
        raise unknown(given) from error


def unknown(given: str) -> UnknownRequest:
    """The error of a response that is not kept."""
    return UnknownRequest(f"response '{given}' not found: it was deleted, not stored, or is over a day old")
