"""The plain form of a text before anything is read from it: without its thinking, in plain characters.

At most `WINDOW` characters of each end of a text are looked at, so that a very long text costs no
more than a long one (Unicode's canonical ordering alone takes quadratic time on hostile input).
"""

from __future__ import annotations

import re
import unicodedata

WINDOW = 4_096

_GROUPING_SPACE = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_BEFORE_VULGAR_FRACTION = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_PLAIN_SIGNS = str.maketrans(
    {
        "\u2010": "-",
        "\u2011": "-",
        "\u2012": "-",
        "\u2013": "-",
        "\u2212": "-",
        "\u2044": "/",
        "\u2019": "'",
        "\u066b": ".",
        "\u066c": ",",
    }
)


def clean(text: str) -> str:
    """`text` with compatibility characters, dashes and apostrophes in their plain form."""
    if text.isascii():
        return text  # nothing of all this is ASCII, and most answers are nothing else
    text = _BEFORE_VULGAR_FRACTION.sub(" ", _GROUPING_SPACE.sub("", text))
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN_SIGNS)
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def fold(text: str) -> str:
    """`text` cleaned and without case."""
    return clean(clean(text).casefold())


def end_of(text: str) -> str:
    """The last part of `text`, cleaned."""
    return clean(text[-WINDOW:])


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last place in `text` that `pattern` fits."""
    return max(pattern.finditer(text), key=re.Match.start, default=None)


_OPENING = re.compile(r"\s*<(think|thinking|reasoning)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)


def without_thinking(text: str) -> str:
    """What stands after the last end of a reasoning; nothing of one that was begun and never ended.

    A chat template may have written the beginning, so an end alone is enough.
    """
    if "<" not in text:
        return text
    *_, end = (0, *(found.end() for found in _CLOSING.finditer(text)))
    rest = text[end:]
    return "" if _OPENING.match(rest) else rest
