"""The rounds of an ensemble: what its agents are asked, and the number in the subject of an answer.

A round has at most one answer of each agent, so that each is stored once. Pure.
"""

from __future__ import annotations

from typing import Literal

QUESTION = 1
DEBATE = 2
PREDICTION = 3
WITHOUT_LOGPROBS = 4
"""The question once more, for agents that cannot say how probable their tokens were and so refused it."""
SAMPLES_FROM = 5
"""The round of the first further sample; each has a round of its own."""

Purpose = Literal["question", "debate", "prediction", "without_logprobs", "sample"]

_PURPOSES: dict[int, Purpose] = {
    QUESTION: "question",
    DEBATE: "debate",
    PREDICTION: "prediction",
    WITHOUT_LOGPROBS: "without_logprobs",
}


def purpose_of(round_: int) -> Purpose:
    """What an answer of this round is an answer to."""
    return _PURPOSES.get(round_, "sample")
