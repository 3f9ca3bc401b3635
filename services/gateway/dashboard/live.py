"""Pages that stay true: fragments of them, sent as server-sent events whenever they have changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from pydantic_core import to_json

from schemas.errors import ChoirError


def event(name: str, fields: Mapping[str, object]) -> bytes:
    """One event; JSON has no line breaks of its own."""
    return b"event: " + name.encode() + b"\ndata: " + to_json(fields) + b"\n\n"


def heartbeat() -> bytes:
    """An event that says nothing: the page knows that it is still connected."""
    return b": here\n\n"


def failed(error: ChoirError) -> bytes:
    """The last event of a page that cannot be kept true."""
    return event("failed", {"message": error.message})


async def changes(parts: AsyncGenerator[Mapping[str, str], None]) -> AsyncGenerator[bytes, None]:
    """An event for each fragment that is another than the one sent before, by the id of its element."""
    sent: dict[str, str] = {}
    try:
        async for fragments in parts:
            for element, html in fragments.items():
                if sent.get(element) != html:
                    sent[element] = html
                    yield event("fragment", {"id": element, "html": html})
    finally:
        await parts.aclose()
