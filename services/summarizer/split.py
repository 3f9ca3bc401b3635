"""Cuts a long text into parts, at the best border there is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PARAGRAPH_END = re.compile(r"\n\s*\n")
LINE_END = re.compile(r"\n")
SENTENCE_END = re.compile(r"[.!?…][\"'’”)\]]*\s+|[。！？]")
WORD_END = re.compile(r"\s+")
BORDERS = (PARAGRAPH_END, LINE_END, SENTENCE_END, WORD_END)
"""Where a text may be cut, the best places first; after them, anywhere."""


def split(text: str, limit: int, borders: Sequence[re.Pattern[str]] = BORDERS) -> list[str]:
    """The parts of a text, each of at most `limit` characters; joined they are the text again.

    As much as fits goes into a part. It is cut between paragraphs where that is possible, else between
    lines, sentences, words, and in the middle of a word only if the word alone is longer than a part.
    """
    if len(text) <= limit:
        return [text]
    if not borders:
        return [text[start : start + limit] for start in range(0, len(text), limit)]
    parts = [""]
    for unit in _units(text, borders[0]):
        if len(parts[-1]) + len(unit) <= limit:
            parts[-1] += unit
        else:
            parts += split(unit, limit, borders[1:])
    return [part for part in parts if part]


def _units(text: str, border: re.Pattern[str]) -> Iterator[str]:
    """The text in pieces that each end with a border."""
    start = 0
    for found in border.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]
