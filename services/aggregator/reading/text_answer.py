"""Short texts as answers: `The Blue Whale!` is `blue whale`."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from services.aggregator.reading.number_answer import bare_number
from services.aggregator.reading.plain_text import WINDOW, fold, without_thinking

_LONGEST_ANSWER = 256


def open_answer(text: str) -> str | None:
    """The answer to an open question of unknown kind: a number if the text is hardly more, else its words."""
    said = without_thinking(text)
    return bare_number(said) or short_text(said)


def short_text(text: str) -> str | None:
    """The words of a short answer: NFKC, lower case, without articles, punctuation and `the answer is`.

    A sign of punctuation that carries meaning stays: the decimal point, the minus of a number, `#`
    and `%` after a word (`C#`, `50%`). An answer of more than 256 characters is given by its
    beginning and a digest of the whole, so that only equal long texts are equal answers.
    """
    text = without_thinking(text)
    head = plain_words(fold(text[:WINDOW]))
    rest = text[WINDOW:].strip()
    if not head and not rest:
        return None
    if not rest and len(head) <= _LONGEST_ANSWER:
        return head
    digest = hashlib.sha256(f"{head}\n{rest}".encode(errors="surrogatepass")).hexdigest()[:16]
    beginning, _, _ = head[: _LONGEST_ANSWER - len(digest) - 1].rpartition(" ")
    return plain_words(f"{beginning} {digest}")


_ANSWER_WORDS = ("final answer ", "correct answer ", "right answer ", "answer ")


def plain_words(folded: str) -> str:
    """The words of a folded text, joined by single blanks."""
    words = _without_articles(without_punctuation(folded).split())
    said = " ".join(words)
    mark = f" {said}".rfind(" answer is ")
    if mark >= 0:
        said = said[mark + len("answer is ") :]
    while said.startswith(_ANSWER_WORDS):
        said = said.split(" ", 1)[1]
    return said


def _without_articles(words: list[str]) -> list[str]:
    """All words but articles. A final `a` is a name (vitamin A), and an article alone is an answer."""
    kept = [w for i, w in enumerate(words) if w not in _ARTICLES or (w == "a" and i == len(words) - 1)]
    return kept or words


_ARTICLES = frozenset({"a", "an", "the"})


_POINT_OF_NO_NUMBER = re.compile(r"(?<!\d)\.|\.(?!\d)")
_GROUPING_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


_ASCII_PUNCTUATION = re.compile(
    r"[\x00-\x1f!\"&()*,/:;?@\[\\\]_`{|}~\x7f]|(?<![0-9])\.|\.(?![0-9])|-(?![0-9])|(?<=[0-9A-Za-z])-"
    r"|(?<![0-9A-Za-z])[#%]"
)
"""What `_kept_or_blank` makes a blank of, where nothing but ASCII stands around: nearly always."""


def without_punctuation(text: str) -> str:
    """`text` with its punctuation taken out or turned into blanks.

    What is taken out goes first, so that the blanks depend on the neighbours that remain.
    """
    if text.isascii():
        text = _GROUPING_COMMA.sub("", _POINT_OF_NO_NUMBER.sub("", text.replace("'", "")))
        return _ASCII_PUNCTUATION.sub(" ", text)
    return without_any_punctuation(text)


def without_any_punctuation(text: str) -> str:
    """The same of any script, sign by sign."""
    text = "".join(char for char in text if char != "'" and unicodedata.category(char) != "Cf")
    text = _GROUPING_COMMA.sub("", _POINT_OF_NO_NUMBER.sub("", text))
    text = unicodedata.normalize("NFKC", text)
    padded = f" {text} "
    return "".join(map(_kept_or_blank, padded, padded[1:], padded[2:]))


def _kept_or_blank(before: str, char: str, after: str) -> str:
    """What becomes of one character between its neighbours."""
    match char:
        case "." if before.isdecimal() and after.isdecimal():
            return char
        case "-" if after.isdecimal() and not before.isalnum():
            return char
        case "#" | "%" if before.isalnum():
            return char
        case "`" | "~" | "|":
            return " "
    return char if char.isalnum() or unicodedata.category(char)[0] in "MS" else " "
