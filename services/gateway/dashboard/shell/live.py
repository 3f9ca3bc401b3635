"""Pages that stay true: fragments of them, sent as server-sent events whenever they have changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping

from pydantic_core import to_json

from schemas.errors import ChoirError
from services.gateway.http.errors import words_of


def event(name: str, fields: Mapping[str, object]) -> bytes:
    """One event; JSON has no line breaks of its own."""
    return b"event: " + name.encode() + b"\ndata: " + to_json(fields) + b"\n\n"


def heartbeat() -> bytes:
    """An event that says nothing: the page knows that it is still connected."""
    return b": here\n\n"


def failed(error: ChoirError) -> bytes:
    """The last event of a page that cannot be kept true."""
    return event("failed", {"message": words_of(error)})


async def changes(
    looks: AsyncGenerator[dict[str, bytes], None], check: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """The events of each look that were not sent before; `check` raises if the watcher may look no more."""
    sent: dict[str, bytes] = {}
    try:
        async for events in looks:
            check()
            for element, told in events.items():
                if sent.get(element) is not told:
                    sent[element] = told
                    yield told
    finally:
        await looks.aclose()
