"""The rounds of an ensemble, as they are numbered in the contract."""

from __future__ import annotations

from schemas.rounds import (
    DEBATE,
    PREDICTION,
    QUESTION,
    SAMPLES_FROM,
    WITHOUT_LOGPROBS,
    Purpose,
    purpose_of,
)

__all__ = ["DEBATE", "PREDICTION", "QUESTION", "SAMPLES_FROM", "WITHOUT_LOGPROBS", "Purpose", "purpose_of"]
