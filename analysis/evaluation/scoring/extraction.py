"""From a model's text to the answer that is scored, in one of several ways; None where nothing can be read.

An answer that cannot be read abstains, is counted, and is never right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from analysis.evaluation.benchmarks.benchmark import INSTRUCTIONS, SCORED
from analysis.evaluation.benchmarks.question import LETTERS, Kind
from schemas.errors import InvalidRequest
from services.aggregator.reading.ballots import normalise
from services.aggregator.reading.number_answer import last_number, strict_number
from services.aggregator.reading.plain_text import without_thinking

Extraction = Callable[[str, Sequence[str]], str | None]

_STRICT_LETTER = re.compile(r"\s*(?:answer\s*:\s*)?\(?([A-Z])\)?[.:)]?\s*", re.IGNORECASE)
_FLEXIBLE_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def strict_choice(text: str, choices: Sequence[str]) -> str | None:
    """A letter and nothing else, but `Answer:`, brackets and a stop: what a prompt for a letter asks for."""
    found = _STRICT_LETTER.fullmatch(without_thinking(text))
    letter = found[1].upper() if found else ""
    return letter if letter and LETTERS.index(letter) < len(choices) else None


def flexible_choice(text: str, choices: Sequence[str]) -> str | None:
    """A letter, or the text of an option, wherever the mesh would find it when it votes."""
    return normalise(text, "choice", choices)


def flexible_number(text: str, _choices: Sequence[str] = ()) -> str | None:
    """The last number that GSM8K's usual pattern finds: in `18 dollars for 7 days` that is 7."""
    found = [match[0] or match[1] for match in _FLEXIBLE_NUMBER.findall(without_thinking(text))]
    return last_number(found[-1]) if found else None


def numeric(text: str, _choices: Sequence[str] = ()) -> str | None:
    """The number that is marked as the answer, and else the last one."""
    return normalise(text, "number")


EXTRACTIONS: dict[tuple[str, Kind], Extraction] = {
    ("strict", "choice"): strict_choice,
    ("flexible", "choice"): flexible_choice,
    ("strict", "number"): lambda text, _choices: strict_number(text),
    ("flexible", "number"): flexible_number,
    ("numeric", "number"): numeric,
    **dict.fromkeys(((way, "choice") for way in SCORED), strict_choice),
    (INSTRUCTIONS, "text"): lambda _text, _choices: None,
}
"""An agent whose options were scored has the likeliest one's letter for an answer; a text that is checked as
a whole has none."""

MESH_READS: dict[Kind, Extraction] = {"choice": flexible_choice, "number": numeric}
"""How the mesh itself reads answers before it votes."""


def extraction(name: str, kind: Kind) -> Extraction:
    """How to read answers of a kind; InvalidRequest, with the ways there are, if there is no such."""
    try:
        return EXTRACTIONS[name, kind]
    except KeyError:
        ways = ", ".join(way for way, of in EXTRACTIONS if of == kind)
        raise InvalidRequest(
            f"extraction: a {kind} cannot be read as {name!r}; there are {ways}", field="extraction"
        ) from None
