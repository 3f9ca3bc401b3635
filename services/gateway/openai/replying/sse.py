"""Server-sent events: one `data:` line each, ended by a blank line."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment. It must not begin with `: ping`: Continue drops what it has read together with that."""


def event(value: Any) -> bytes:
    """One event of JSON."""
    return b"data: " + to_json(value) + b"\n\n"


def named_event(name: str, value: Any) -> bytes:
    """One event that also has a name."""
    return b"event: " + name.encode() + b"\n" + event(value)
