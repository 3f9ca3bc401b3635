"""The batch-size tuner: how many sequences share a step, by the measured times of steps."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

FORGETTING = 1.02
"""Other programs on a host only make steps longer: the shortest time counts, and decays slowly."""
SMOOTHING = 0.2
GROWTH = 0.8
"""Beyond what was measured a step is taken to grow a little slower than the number of its sequences."""
FIRST_GUESS_MS = 10.0
TRIES = 3
"""A number of sequences is judged by its steps after so many; the first ones take longer."""
HOPE = 0.9999
"""A step that is not taken is thought to have become this much shorter with each one that is, so that every
number of sequences is tried again in time."""
PROMPT_SHARE = 0.4
"""Of the time of a single token, as long as no prompt has been timed."""


class BatchSizeTuner:
    """Measured times of steps with one token of each of some sequences, and of a prompt's token."""

    def __init__(self) -> None:
        self._step_ms: dict[int, float] = {}
        self._tries: Counter[int] = Counter()
        self._age: Counter[int] = Counter()
        self._prompt_token_ms: float | None = None

    def note(self, sequences: int, ms: float) -> None:
        """A step with a token of each of so many sequences took so long."""
        known = self._step_ms.get(sequences)
        self._step_ms[sequences] = ms if known is None else min(ms, known * FORGETTING)
        self._tries[sequences] += 1
        for count in self._step_ms:
            self._age[count] += 1
        self._age[sequences] = 0

    def note_prompt(self, tokens: int, ms: float) -> None:
        """A step with so many tokens of a prompt took so long."""
        known, found = self._prompt_token_ms, ms / tokens
        self._prompt_token_ms = found if known is None else known + SMOOTHING * (found - known)

    @property
    def measured(self) -> dict[int, float]:
        """Milliseconds of a step by its number of sequences."""
        return dict(self._step_ms)

    @property
    def prompt_token_ms(self) -> float:
        """Milliseconds of one token in a long step."""
        if self._prompt_token_ms is not None:
            return self._prompt_token_ms
        return self.step_ms(1) * PROMPT_SHARE

    def step_ms(self, sequences: int) -> float:
        """The time of a step, between measured numbers of sequences by interpolation."""
        known = sorted(self._step_ms)
        if not known:
            return FIRST_GUESS_MS * (1 + GROWTH * (sequences - 1))
        place = bisect_left(known, sequences)
        if place == len(known):
            most = known[-1]
            return self._step_ms[most] * (1 + GROWTH * (sequences / most - 1))
        above = known[place]
        if place == 0:
            return self._step_ms[above]
        below = known[place - 1]
        share = (sequences - below) / (above - below)
        return self._step_ms[below] + share * (self._step_ms[above] - self._step_ms[below])

    def best(self, most: int) -> int:
        """Of 1 to `most` sequences, how many in a step give most tokens a second. Powers of two and `most`
        are weighed; a power that has hardly been tried comes first, as nobody can tell its rate."""
        if most == 1:
            return 1
        powers = [1 << exponent for exponent in range(most.bit_length())]
        hardly_tried = [count for count in powers if self._tries[count] < TRIES]
        if hardly_tried:
            return hardly_tried[-1]
        return max((*powers, most), key=lambda count: (count / self._hoped_ms(count), count))

    def _hoped_ms(self, sequences: int) -> float:
        hope: float = HOPE ** self._age[sequences]
        return self.step_ms(sequences) * hope

    def merged(self, batches: Sequence[int]) -> int:
        """Of the micro-batches that have arrived, in their order, how many sequences to evaluate in one step:
        the first, and as many of the next as make the rate higher."""
        total = batches[0] if batches else 0
        for batch in batches[1:]:
            if (total + batch) / self.step_ms(total + batch) < total / self.step_ms(total):
                break
            total += batch
        return total


def group_size(tuner: BatchSizeTuner, active: int, stages: int) -> int:
    """How many of `active` sequences stage 0 sends on together: no more than leave the other stages
    something to do, and of these sizes the one with the highest rate."""
    return tuner.best(max(1, -(-active // stages)))
