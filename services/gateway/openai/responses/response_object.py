"""The `response` object: what every endpoint of the Responses API answers with, and most events carry."""

from __future__ import annotations

from typing import Any, Literal

from schemas.errors import ErrorBody
from schemas.replies import Result
from schemas.requests.responses import ResponseRecord
from services.gateway.http.errors import words_of
from services.gateway.openai.replying.outcome import choices, usage
from services.gateway.openai.responses.identity import PREFIX, response_id
from services.gateway.openai.responses.items import Item
from services.gateway.openai.responses.output import output_of

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
INCOMPLETE = "max_output_tokens"


def unfinished(record: ResponseRecord, status: Status = "in_progress") -> dict[str, Any]:
    """A response that is being made."""
    return _object(record, status, [])


def finished(record: ResponseRecord, result: Result) -> dict[str, Any]:
    """A response as its result says: completed, cut off, failed or cancelled."""
    if result.error is not None:
        return failed(record, result.error, result.completed_at_s)
    cut = choices(result)[0].finish_reason == "length"
    response = _object(record, "incomplete" if cut else "completed", output_of(response_id(record), result))
    response["usage"] = _usage(result)
    # A result that was there already is older than the response that it answers
    response["completed_at"] = max(result.completed_at_s, record.created_at_s)
    if cut:
        response["incomplete_details"] = {"reason": INCOMPLETE}
    return response


def failed(record: ResponseRecord, error: ErrorBody, at_s: float) -> dict[str, Any]:
    """A response that has come to nothing."""
    if error.code == "cancelled":
        return _object(record, "cancelled", [])
    response = _object(record, "failed", [])
    response["error"] = {"code": "server_error", "message": words_of(error)}
    response["completed_at"] = at_s
    return response


def _usage(result: Result) -> dict[str, Any]:
    used = usage(result)
    details = used.get("completion_tokens_details", {"reasoning_tokens": 0})
    return {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": details,
        "total_tokens": used["total_tokens"],
    }


def _object(record: ResponseRecord, status: Status, output: list[Item]) -> dict[str, Any]:
    """The fields in the order of OpenAI's documentation."""
    return {
        "id": response_id(record),
        "object": "response",
        "created_at": record.created_at_s,
        "status": status,
        "background": record.background,
        "error": None,
        "incomplete_details": None,
        "model": record.model,
        "output": output,
        "previous_response_id": None if record.previous is None else PREFIX + record.previous,
        "usage": None,
        **record.echo,
    }
