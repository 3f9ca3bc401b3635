"""Lists in pages, as OpenAI's clients turn them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from schemas.errors import InvalidRequest


def page(request: Request, found: Sequence[dict[str, Any]], usual: int, most: int) -> dict[str, Any]:
    """A page of a list that has the newest first: after the entry `after`, with at most `limit` entries."""
    limit = _limit(request.query_params.get("limit", str(usual)), most)
    entries = list(found)
    if request.query_params.get("order", "desc") == "asc":
        entries.reverse()
    if (after := request.query_params.get("after")) is not None:
        places = [place for place, entry in enumerate(entries) if entry["id"] == after]
        entries = entries[places[0] + 1 :] if places else []
    shown = entries[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(entries) > limit,
    }


def _limit(given: str, most: int) -> int:
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= most):
        raise InvalidRequest(f"limit: it must be a whole number from 1 to {most}", field="limit")
    return int(given)
