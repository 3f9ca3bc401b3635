"""Log probabilities: of the token that was chosen, and of its alternatives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from services.engine.decode.context import Logits
from services.engine.model.model import Model
from services.engine.sequence.generation import RankedToken, TokenLogprob


class Probability(NamedTuple):
    """The log probability of a token under the model's own distribution, and the most probable tokens in its
    place with theirs, in descending order."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def probability(logits: Logits, token: int, alternatives: int) -> Probability:
    """That of `token`, beside so many alternatives."""
    logprobs = log_softmax(logits)
    best = most_probable(logprobs, alternatives)
    return Probability(float(logprobs[token]), tuple((i, float(logprobs[i])) for i in best))


def with_texts(model: Model, token: int, found: Probability) -> TokenLogprob:
    """A probability with the texts of its tokens."""
    top = tuple(RankedToken(i, model.text_of([i]), logprob) for i, logprob in found.top)
    return TokenLogprob(token, model.text_of([token]), found.logprob, top)


def token_logprob(model: Model, logits: Logits, token: int, alternatives: int) -> TokenLogprob:
    """probability(), with texts."""
    return with_texts(model, token, probability(logits, token, alternatives))


def log_softmax(logits: Logits) -> Logits:
    """log(softmax(logits)), computed without overflow."""
    shifted = logits - logits.max()
    result: Logits = shifted - np.log(np.exp(shifted).sum())
    return result


def most_probable(logprobs: Logits, count: int) -> list[int]:
    """The indices of the `count` largest entries, largest first."""
    count = min(count, len(logprobs))
    candidates = np.argpartition(logprobs, len(logprobs) - count)[len(logprobs) - count :]
    return [int(i) for i in candidates[np.argsort(-logprobs[candidates], kind="stable")]]
