"""Keeps what people write apart from what a chat template writes: a control token's name in a user's text
is text.

Before a template is rendered, each such name in the texts that go into it is put between two marks,
characters that none of the texts has; the rendered text is then cut at the marks. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from schemas.errors import InvalidRequest

# Unicode's non-characters: no text that means anything has them.
NON_CHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt. In a `plain` one the names of control tokens are text."""

    text: str
    plain: bool = False


class PlainText:
    """Knows the names of a vocabulary's control tokens."""

    def __init__(self, control_texts: Iterable[str]) -> None:
        names = sorted({text for text in control_texts if text}, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None

    def marks_for(self, values: Any) -> Marks:
        """Marks that do not occur in any text of `values`."""
        seen = set().union(*(set(text) for text in _texts(values)))
        free = [mark for mark in NON_CHARACTERS if mark not in seen]
        if len(free) < 2:
            raise InvalidRequest("messages: a text is made of Unicode's non-characters", field="messages")
        return Marks(self._names, free[0], free[1])


@dataclass(frozen=True)
class Marks:
    """Two characters that enclose control tokens' names."""

    names: re.Pattern[str] | None
    begin: str
    end: str

    def put(self, value: Any) -> Any:
        """The same text, list or mapping, with marks in all texts."""
        if self.names is None:
            return value
        if isinstance(value, str):
            return self.names.sub(lambda found: f"{self.begin}{found[0]}{self.end}", value)
        if isinstance(value, dict):
            return {self.put(key): self.put(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.put(item) for item in value]
        return value

    def cut(self, rendered: str) -> tuple[Piece, ...]:
        """The pieces of a rendered text, without marks. A mark whose other one a template has dropped means
        nothing."""
        enclosed = re.compile(f"{self.begin}([^{self.begin}{self.end}]*){self.end}")
        pieces, at = [], 0
        for found in enclosed.finditer(rendered):
            if self.names is not None and self.names.fullmatch(found[1]):
                pieces.append(Piece(self.without(rendered[at : found.start()])))
                pieces.append(Piece(found[1], plain=True))
                at = found.end()
        pieces.append(Piece(self.without(rendered[at:])))
        return tuple(piece for piece in pieces if piece.text)

    def without(self, text: str) -> str:
        """A text without marks."""
        return text.replace(self.begin, "").replace(self.end, "")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
