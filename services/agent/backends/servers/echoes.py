"""Takes out of a server's words what it repeats of a request: what users write is for no log, event or lease.

Nor is the key that a server was shown. Servers quote in their errors what they were sent: a field that they
refuse, a prompt that is too long, a key that they do not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from itertools import groupby
from typing import Any

import httpx

SAME_BY_CHANCE = 11
"""So many letters and digits in a row a server may have in common with a request."""
SHORTEST_TEXT = 4
"""A shorter text is told: "hi" is in many a word."""
NO_TEXTS = frozenset({"model", "role", "type"})
"""Fields of requests that have names and words of the API."""
LEFT_OUT = "[...]"

LETTER = re.compile(r"\\+u(?P<code>[0-9a-fA-F]{4})|\\+.|(?P<plain>[^\W_])")
"""A letter or digit, or what stands for a character in JSON."""

_sent: ContextVar[bytes] = ContextVar("sent", default=b"")
_shown: ContextVar[str] = ContextVar("shown", default="")


def note_sent(request: httpx.Request) -> None:
    """Keeps what this task has sent to a server last, and the key that went with it."""
    _sent.set(request.content)
    _shown.set(request.headers.get("authorization", "").partition(" ")[2])


def without_echo(said: str) -> str:
    """A server's words, without the stretches that are also in a text of what this task has sent last. How
    such a text is escaped or broken into lines makes no difference."""
    found = [(letter, at) for at in LETTER.finditer(said) if (letter := _letter(at))]
    letters = "".join(letter for letter, _ in found)
    echoed = [False] * len(letters)
    for text in _texts():
        _mark(echoed, letters, text)
    told, end = [], 0
    for is_echo, run in groupby(range(len(letters)), echoed.__getitem__):
        stretch = [found[place][1] for place in run]
        if is_echo:
            told += [said[end : stretch[0].start()], LEFT_OUT]
            end = stretch[-1].end()
    return "".join(told) + said[end:]


def _letter(found: re.Match[str]) -> str:
    """The letter or digit that was found; empty if it was another character."""
    if found["code"] is None:
        return found["plain"] or ""
    character = chr(int(found["code"], 16))
    return character if character.isalnum() else ""


def _mark(echoed: list[bool], letters: str, text: str) -> None:
    """Marks the letters that come in the same order in the text, where there are enough of them."""
    least = min(SAME_BY_CHANCE + 1, len(text))
    for first in range(len(letters) - least + 1):
        end = first + least
        if letters[first:end] in text:
            echoed[first:end] = [True] * least


def _texts() -> Iterator[str]:
    """The letters and digits of the key and of each text that was sent, also as they are found if it has
    backslashes."""
    texts = {_shown.get()}
    with suppress(ValueError):
        texts |= set(_strings(json.loads(_sent.get() or b"null")))
    found = {"".join(map(_letter, LETTER.finditer(text))) for text in texts if "\\" in text}
    for letters in found.union("".join(filter(str.isalnum, text)) for text in texts):
        if len(letters) >= SHORTEST_TEXT:
            yield letters


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            if name not in NO_TEXTS:
                yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
