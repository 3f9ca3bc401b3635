"""How probable an agent held each option of a closed question, read from its answer's logprobs. Pure.

An answer names its option by letter or by text, token by token. Where it could have named another one, the
probabilities of the tokens in that place say how much it was inclined to; what an option has in all places
is added up, and the options' probabilities are made to add up to 1.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.replies import Answer
from services.aggregator.reading.choice_answer import choice

MARKS = " \t\r\n.:;,()[]{}*_\"'`"


def option_probabilities(answer: Answer, choices: Sequence[str]) -> dict[str, float]:
    """The probability of each option by its letter; empty if the answer has no logprobs, or names no option.

    Alternatives that were not reported count as impossible, so ask for more of them than there are options.
    """
    chosen = choice(answer.text, choices) if answer.logprobs else None
    if chosen is None:
        return {}
    letters = string.ascii_uppercase[: len(choices)]
    weights = _by_letter(answer.logprobs, chosen, letters)
    if not weights:
        weights = _by_text(answer.logprobs, dict(zip(letters, map(_plain, choices), strict=True)))
    total = math.fsum(weights.values())
    return {letter: weights.get(letter, 0.0) / total for letter in letters} if total > 0 else {}


def _by_letter(places: Sequence[Mapping[str, Any]], chosen: str, letters: str) -> dict[str, float]:
    """The letters' probabilities in the last place where the chosen letter stands alone in a token."""
    for place in reversed(places):
        if str(place.get("text", "")).strip(MARKS) == chosen:
            found: dict[str, float] = {}
            for text, probability in _alternatives(place):
                if (letter := text.strip(MARKS)) and letter in letters:
                    found[letter] = found.get(letter, 0.0) + probability
            return found
    return {}


def _by_text(places: Sequence[Mapping[str, Any]], options: Mapping[str, str]) -> dict[str, float]:
    """The options' probabilities along the answer, while more than one option could still be meant.

    A token that leaves several options open counts for all of them alike where the answer left that way.
    """
    weights: dict[str, float] = {}
    said, reached = "", 1.0
    for place in places:
        for text, probability in _alternatives(place):
            if text == place.get("text"):
                continue
            meant = _begin_with(said + text, options)
            for letter in meant:
                weights[letter] = weights.get(letter, 0.0) + reached * probability / len(meant)
        said += str(place.get("text", ""))
        reached *= math.exp(float(place.get("logprob", 0.0)))
        meant = _begin_with(said, options)
        if len(meant) < 2:
            return weights | {letter: weights.get(letter, 0.0) + reached for letter in meant}
    return weights | {letter: weights.get(letter, 0.0) + reached for letter in meant} if places else {}


def _begin_with(said: str, options: Mapping[str, str]) -> list[str]:
    """The options whose text could go on from `said`, or has been said; all, before a word is said."""
    plain = _plain(said)
    if not plain:
        return list(options)
    return [letter for letter, text in options.items() if text.startswith(plain) or plain.startswith(text)]


def _plain(text: str) -> str:
    return " ".join(text.strip(MARKS).casefold().split())


def _alternatives(place: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The tokens that could have come in a place, that which came among them, with their probabilities."""
    top = [(str(each.get("text", "")), float(each["logprob"])) for each in place.get("top", ())]
    if all(text != place.get("text") for text, _ in top) and "logprob" in place:
        top.append((str(place.get("text", "")), float(place["logprob"])))
    return ((text, math.exp(logprob)) for text, logprob in top)
