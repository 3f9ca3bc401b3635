"""A long text in passages of a limited size, cut where a reader would pause."""

from __future__ import annotations

import re
from collections.abc import Iterable

BORDERS = (
    re.compile(r"(?<=\n\n)"),  # paragraphs
    re.compile(r"(?<=\n)"),  # lines
    re.compile(r"(?<=[.!?]\s)"),  # sentences
    re.compile(r"(?<=\s)"),  # words
)


def passages(text: str, max_bytes: int) -> list[str]:
    """Consecutive passages that together are `text`, each of at most `max_bytes` bytes of UTF-8.

    As many whole paragraphs as fit go together, else lines, sentences, words, and at last characters.
    `max_bytes` is at least 4, so that every character fits.
    """
    if max_bytes < 4:
        raise ValueError("a passage has room for any one character: 4 bytes at least")
    return _packed(_small(text, max_bytes, BORDERS), max_bytes)


def _small(text: str, max_bytes: int, borders: tuple[re.Pattern[str], ...]) -> Iterable[str]:
    """Pieces none of which is too large, each as large as the coarsest border allows."""
    if _size(text) <= max_bytes:
        yield text
    elif not borders:
        yield from text
    else:
        border, *finer = borders
        pieces = [piece for piece in border.split(text) if piece]
        for packed in _packed(pieces, max_bytes):
            yield from _small(packed, max_bytes, tuple(finer))


def _packed(pieces: Iterable[str], max_bytes: int) -> list[str]:
    """Neighbours joined for as long as they fit."""
    packed: list[str] = []
    current: list[str] = []
    room = max_bytes
    for piece in pieces:
        size = _size(piece)
        if current and size > room:
            packed.append("".join(current))
            current, room = [], max_bytes
        current.append(piece)
        room -= size
    return [*packed, "".join(current)] if current else packed


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
