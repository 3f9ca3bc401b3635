"""Drafts: the tokens of a text that stage 0 guesses, so that stages which would wait have something to do.

While a later stage computes what follows one token, stage 0 already sends the frame of the guessed next one,
as PipeInfer does (https://arxiv.org/abs/2407.11798). The last stage samples as ever, and takes the frame of a
guess only where that is what it has sampled: the text is what it would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Protocol

from schemas.pipelines.plan import DraftSource

LOOKED_UP = (3, 2)
"""The last so many tokens are looked for in what was said before, the longest first."""
SMOOTHING = 0.125
LEAST_CHANCE = 0.2
"""A guess that is less likely to be right is not sent: wrong ones cost steps of stages that others share."""


class Proposer(Protocol):
    """Guesses the tokens of one text."""

    def propose(self, tokens: Sequence[int], guessed: Sequence[int]) -> int | None:
        """What may follow the `tokens` of a text and those `guessed` after them; None where there is no
        guess. Each call has the tokens of the one before, and those that were certain since."""


class Lookup:
    """Guesses what followed when the prompt or the text said the same before: prompt lookup, an n-gram
    model of the one text."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._read = 0

    def propose(self, tokens: Sequence[int], guessed: Sequence[int]) -> int | None:
        """As Proposer.propose()."""
        for index in range(self._read, len(tokens)):
            for length in LOOKED_UP:
                if index >= length:
                    self._after[tuple(tokens[index - length : index])] = tokens[index]
        self._read = len(tokens)
        end = (*tokens[-LOOKED_UP[0] :], *guessed)
        found = (self._after.get(end[-length:]) for length in LOOKED_UP)
        return next((token for token in found if token is not None), None)


PROPOSERS: dict[DraftSource, Callable[[], Proposer]] = {"lookup": Lookup}


class Drafts:
    """The guesses of one text: those that were `sent` and are not certain yet, in which `attempt`, and how
    often guesses were right lately. Those that are not sent are compared all the same."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._right = 0.0
        self.sent: list[int] = []
        self.attempt = 0

    def reset(self) -> None:
        """Begins an epoch: what was sent counts no more."""
        self.sent.clear()
        self.attempt = 0

    def depth(self, most: int) -> int:
        """How many guesses are sent ahead, `most` at most: as many as are all right often enough."""
        if self._right <= LEAST_CHANCE:
            return 0
        return min(most, int(log(LEAST_CHANCE) / log(min(self._right, 0.999))))

    def next(self, tokens: Sequence[int], most: int) -> int | None:
        """The next guess to send, if there is one that is worth it."""
        if len(self.sent) >= self.depth(most):
            return None
        return self._proposer.propose(tokens, self.sent)

    def check(self, tokens: Sequence[int], token: int) -> bool:
        """Takes the token that follows the `tokens`; whether it was sent already. A wrong guess ends its
        attempt."""
        guess = self.sent[0] if self.sent else self._proposer.propose(tokens, ())
        if guess is not None:
            self._right += SMOOTHING * ((guess == token) - self._right)
        if not self.sent:
            return False
        if guess == token:
            del self.sent[0]
            return True
        self.sent.clear()
        self.attempt += 1
        return False
