"""Bounds what an external server says of itself, so that it fits into the lease."""

from __future__ import annotations

from schemas.errors import ErrorBody

MOST_CHARACTERS = 200
MOST_KNOWN = 12
LARGEST_NUMBER = 2**63 - 1
LARGEST_COUNT = 2**53
"""Of tokens, or of nanoseconds: a hundred days."""


_COMMANDS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)))


def plain(text: str) -> str:
    """A text without what would command a terminal, and on one line."""
    return text if text.isprintable() else text.translate(_COMMANDS)


def bounded_text(text: str) -> str:
    """At most 200 characters, and none that commands a terminal."""
    text = plain(text)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def bounded_error(body: ErrorBody) -> ErrorBody:
    """Its texts cut, and at most 12 of the models that are known."""
    known = None if body.known is None else tuple(map(bounded_text, body.known[:MOST_KNOWN]))
    return body.model_copy(update={"message": bounded_text(body.message), "known": known})


def bounded_number(number: int | None) -> int | None:
    """None for what is no size of anything."""
    return number if number is not None and 0 <= number <= LARGEST_NUMBER else None


def bounded_count(said: object, otherwise: int = 0) -> int:
    """A number that a server says, as a whole one; `otherwise` for what cannot be a count of anything."""
    if not isinstance(said, int | float) or isinstance(said, bool):
        return otherwise
    return int(said) if 0 <= said <= LARGEST_COUNT else otherwise
