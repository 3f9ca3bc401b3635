"""What a text speaks against: options that it rules out, hedges between or only repeats. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.aggregator.reading.plain_text import WINDOW

_LABEL = (
    r"[(\[*_\"'`]{0,3}(?:\b(?i:option|choice)\s{1,3})?[(\[*_\"'`]{0,3}(?<![A-Za-z])([A-Z])\b(?!['’]|(?<=I)\s{1,3}[a-z])"
    r"[)\]*_\"'`]{0,3}"
)
_AND = r"\s{0,3}(?:,\s{0,3}(?:and|or|nor)\b|,|/|&|\b(?i:and|or|nor|und|oder|et|ou)\b)\s{0,3}"
_LABELS = rf"{_LABEL}(?:{_AND}{_LABEL}){{0,4}}"
_BE = (
    r"\s{1,3}(?i:is|are|was|were|must\s+be|seems?|looks?|would\s+be)\s{1,3}"
    r"(?i:both\s+|all\s+|clearly\s+|definitely\s+|obviously\s+)?"
)
_WRONG = (
    r"(?i:wrong|incorrect|false|impossible|out|ruled\s+out|eliminated"
    r"|not\s+(?:correct|right|true|it|possible|the\s+(?:answer|right|correct)))\b"
)
_NEGATION = (
    r"\b(?i:not|isn't|isnt|never|cannot\s+be|can't\s+be|neither|nor|rule\s+out|ruling\s+out|eliminate"
    r"|exclude|rather\s+than|instead\s+of)\s{1,3}(?i:either\s+|both\s+|just\s+)?"
)
_RULED_OUT = (
    re.compile(rf"{_NEGATION}{_LABELS}"),
    re.compile(rf"{_LABELS}{_BE}{_WRONG}"),
    re.compile(rf"{_LABELS}\s{{1,3}}(?i:isn't|aren't|can't\s+be|cannot\s+be)(?:\s{{1,3}}\w{{1,12}}){{0,2}}"),
    re.compile(r"(?<![A-Za-z])([A-Z])\?\s{0,3}(?i:no)\b"),
)
_HEDGED = re.compile(rf"{_LABEL}{_AND}(?i:maybe\s+|perhaps\s+|possibly\s+|also\s+|even\s+)?(?={_LABEL})")


def without_ruled_out(text: str) -> str:
    """`text` without labels that it says are not the answer: `not A`, `(A) is wrong`, `neither A nor B`."""
    for pattern in _RULED_OUT:
        text = pattern.sub(" ", text)
    return text


def hedges(text: str, labels: str) -> bool:
    """Whether `text` names two different labels as one: `B or C`, `A and B`, `A, B`."""
    return any(
        found[1] != found[2] and found[1] in labels and found[2] in labels for found in _HEDGED.finditer(text)
    )


def without_options(text: str, labels: str, options: Sequence[str]) -> str:
    """`text` without the list of options, where it repeats it from the first on: `A. Paris  B. London`.

    Two options in a row are a list, and so is one with the beginning of the next, where the text was cut off.
    """
    if len(options) < 2 or max(map(len, options)) > WINDOW or not _may_list(text, labels[1], options[0]):
        return text
    begin = _item(labels[0], options[0]).search(text)
    if begin is None:
        return text
    end, count = begin.end(), 1
    while count < len(options) and (found := _item(labels[count], options[count]).match(text, end)):
        end, count = found.end(), count + 1
    rest = text[end:].strip()
    if count < len(options) and rest and _begins(rest, labels[count], options[count]):
        return text[: begin.start()]
    return text if count < 2 else f"{text[: begin.start()]}\n{text[end:]}"


def _may_list(text: str, second: str, first: str) -> bool:
    """Whether the label of the second option stands anywhere after the text of the first: a list has it."""
    *_, rest = text.casefold().partition(first.casefold()) if first else ("", "", text.casefold())
    return second.casefold() in rest


def _item(label: str, option: str) -> re.Pattern[str]:
    """One line of the list, wherever it stands."""
    sign = r"[\s(\[*_,;|-]{0,8}(?<![A-Za-z])"
    return re.compile(rf"{sign}{label}[.):\]*]{{1,3}}\s{{0,3}}{re.escape(option)}(?!\w)", re.IGNORECASE)


def _begins(rest: str, label: str, option: str) -> bool:
    """Whether `rest` is the beginning of a line of the list."""
    return any(f"{label}{sign} {option}".startswith(rest) for sign in ".):")
