"""Log probabilities: of the token that was chosen, and of its alternatives."""

from __future__ import annotations

import numpy as np

from services.engine.decode.context import Logits
from services.engine.model.model import Model
from services.engine.sequence.generation import RankedToken, TokenLogprob


def token_logprob(model: Model, logits: Logits, token: int, alternatives: int) -> TokenLogprob:
    """The log probability of `token` under the model's own distribution, with the `alternatives` most
    probable tokens in descending order."""
    logprobs = log_softmax(logits)
    best = most_probable(logprobs, alternatives)
    top = tuple(RankedToken(i, model.text_of([i]), float(logprobs[i])) for i in best)
    return TokenLogprob(token, model.text_of([token]), float(logprobs[token]), top)


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
