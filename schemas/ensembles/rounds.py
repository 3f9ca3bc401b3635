"""The rounds of an ensemble: what its agents are asked, and the number in the subject of an answer.

A round has at most one answer of each agent, so that each is stored once. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Literal

QUESTION = 1
DEBATE = 2
PREDICTION = 3
WITHOUT_LOGPROBS = 4
"""The question once more, for agents that cannot say how probable their tokens were and so refused it."""
SAMPLES_FROM = 5
"""The round of the first further sample; each has a round of its own."""

SYNTHESIS = 100
"""One agent writes one answer from all."""
OWN_SYNTHESIS = 101
"""The same from its own samples."""
COMPARISONS_FROM = 1_000
"""Which of two answers is better; each pair of agents has a round of its own."""
VECTORS_FROM = 1_100_000_000
"""The vector of what an agent said; each has a round of its own. All rounds fit into 32 bits with a sign."""

Purpose = Literal[
    "question", "debate", "prediction", "without_logprobs", "sample", "synthesis", "comparison", "vector"
]

_PURPOSES: dict[int, Purpose] = {
    QUESTION: "question",
    DEBATE: "debate",
    PREDICTION: "prediction",
    WITHOUT_LOGPROBS: "without_logprobs",
    SYNTHESIS: "synthesis",
    OWN_SYNTHESIS: "synthesis",
}
_PLACES = 1_000_000_000


def purpose_of(round_: int) -> Purpose:
    """What an answer of this round is an answer to."""
    if round_ >= VECTORS_FROM:
        return "vector"
    if round_ >= COMPARISONS_FROM:
        return "comparison"
    return _PURPOSES.get(round_, "sample")


def comparison_round(one: str, other: str) -> int:
    """The round in which the answers of two agents are compared, whichever of them is named first."""
    return COMPARISONS_FROM + _place("\n".join(sorted((one, other))))


def vector_round(agent: str) -> int:
    """The round of the vector of what an agent said, whoever makes it."""
    return VECTORS_FROM + _place(agent)


def _place(names: str) -> int:
    return int.from_bytes(hashlib.sha256(names.encode()).digest()[:8]) % _PLACES
