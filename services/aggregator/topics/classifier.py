"""Naive Bayes over the words of a question, from a table of weights that lies beside this file.

The table is written by `python -m analysis.topic_words` from Choir's own question sets. Whatever else can
name the topic of a text may stand in its place: see `TopicClassifier`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

TABLE = Path(__file__).with_name("words.json")
WINDOW = 4_000
"""Characters of a question that are looked at, so that a long text costs no more than a page."""
LEAST_EVIDENCE = 3.5
LEAST_LEAD = 1.0
"""Natural log-odds: a topic must be e^3.5 times as likely as before, and e times as likely as the next."""

_WORD = re.compile(r"[a-z]+|\d+|[-+*/=]")
_NUMBER = "#"
_GRAMMAR = """
a all an and any are as at be been but by can could did do does each for from had has have he her him his how
i if in into is it its me more my no not of on one or our out she so some than that the their them then there
these they this those to up us was we were what when where which who whom whose why will with would you your
"""
_FUNCTION_WORDS = frozenset(_GRAMMAR.split())


class TopicClassifier(Protocol):
    """Says what a question is about. The same text always has the same topic."""

    def topic_of(self, text: str) -> str | None:
        """The topic of a question; None if it is about nothing that is known."""


@dataclass(frozen=True)
class TopicWords:
    """The weight of each word for each topic: the logarithm of how much more frequent it is there."""

    weights: Mapping[str, Mapping[str, float]]

    def topic_of(self, text: str) -> str | None:
        """The topic with the greatest sum of weights, if it is large enough and far enough from the next."""
        seen = words_of(text)
        sums = sorted(
            (
                (sum(weights.get(word, 0.0) for word in seen), topic)
                for topic, weights in self.weights.items()
            ),
            reverse=True,
        )
        if not sums or sums[0][0] < LEAST_EVIDENCE:
            return None
        next_best = sums[1][0] if len(sums) > 1 else 0.0
        return sums[0][1] if sums[0][0] - max(next_best, 0.0) >= LEAST_LEAD else None


def words_of(text: str) -> list[str]:
    """The different words and signs of calculation in a text, sorted; every number is the same word.

    Words of grammar alone, that any question could have, are left out.
    """
    found = _WORD.findall(text[:WINDOW].lower())
    return sorted({_NUMBER if word.isdigit() else word for word in found if word not in _FUNCTION_WORDS})


def shipped() -> TopicWords:
    """The classifier that comes with Choir."""
    return TopicWords(json.loads(TABLE.read_text(encoding="utf-8")))
