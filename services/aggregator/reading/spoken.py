"""What a text says, without what it only thinks: reasoning between `<think>` and `</think>` is no answer."""

from __future__ import annotations

import re

_OPENING = re.compile(r"\s*<(think|thinking|reasoning)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)


def spoken(text: str) -> str:
    """What stands after the last end of a reasoning; nothing of one that was begun and never ended.

    A chat template may have written the beginning, so an end alone is enough.
    """
    if "<" not in text:
        return text
    *_, end = (0, *(found.end() for found in _CLOSING.finditer(text)))
    rest = text[end:]
    return "" if _OPENING.match(rest) else rest
