"""What agents are asked beyond the question, and in which round. Pure.

A round is a number in the subject of an answer, so that an answer of each round is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

QUESTION = 1
DEBATE = 2
PREDICTION = 3
WITHOUT_LOGPROBS = 4
"""The question once more, for agents that cannot say how probable their tokens were and so refused it."""
SAMPLES_FROM = 5
"""The round of the first further sample; each has a round of its own."""

Purpose = Literal["question", "debate", "prediction", "without_logprobs", "sample"]


def purpose_of(round_: int) -> Purpose:
    """What an answer of this round is an answer to."""
    purposes: Sequence[Purpose] = ("question", "debate", "prediction", "without_logprobs")
    return purposes[round_ - 1] if round_ < SAMPLES_FROM else "sample"
