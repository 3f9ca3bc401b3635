"""The batch-size tuner: how many sequences share a step, by the measured times of steps."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from services.engine.sequence.sequence import Sequence as TextSequence

Text = TypeVar("Text", bound=TextSequence)

FORGETTING = 1.02
"""Other programs on a host only make steps longer: the shortest time counts, and decays slowly."""
SMOOTHING = 0.2
GROWTH = 0.8
"""Beyond what was measured a step is taken to grow a little slower than the number of its sequences."""
FIRST_GUESS_MS = 10.0
NEARLY = 0.95
"""Of numbers with nearly the best rate the largest is taken: fewer steps, and less around llama.cpp. A short
step is also more often left alone than a long one, on a host with much else to do."""
CHOSEN_FOR = 16
"""A choice is weighed anew after so many steps, or one of another number: it takes as long as a few tokens of
Python around llama.cpp."""
TRIES = 3
"""A number of sequences is judged by its steps after so many; the first ones take longer."""
HOPE = 0.9999
"""Optimism: the estimate for a batch size that is not taken shrinks by this factor with each step that is, so
that every size is tried again in time."""
PROMPT_SHARE = 0.4
"""Of the time of a single token, as long as no prompt has been timed."""


class BatchSizeTuner:
    """Measured times of steps with one token of each of some sequences, and of a prompt's token."""

    def __init__(self) -> None:
        self._step_ms: dict[int, float] = {}
        self._tries: Counter[int] = Counter()
        self._notes = 0
        self._noted_at: dict[int, int] = {}
        self._last = 0
        self._chosen: dict[int, int] = {}
        self._prompt_token_ms: float | None = None

    def note(self, sequences: int, ms: float) -> None:
        """A step with a token of each of so many sequences took so long."""
        known = self._step_ms.get(sequences)
        self._step_ms[sequences] = ms if known is None else min(ms, known * FORGETTING)
        self._tries[sequences] += 1
        self._notes += 1
        self._noted_at[sequences] = self._notes
        if sequences != self._last or self._tries[sequences] <= TRIES or not self._notes % CHOSEN_FOR:
            self._last = sequences
            self._chosen.clear()

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
        chosen = self._chosen.get(most)
        if chosen is None:
            chosen = self._chosen[most] = self._best(most)
        return chosen

    def _best(self, most: int) -> int:
        powers = [1 << exponent for exponent in range(most.bit_length())]
        hardly_tried = [count for count in powers if self._tries[count] < TRIES]
        if hardly_tried:
            return hardly_tried[-1]
        rates = {count: count / self._hoped_ms(count) for count in (*powers, most)}
        enough = NEARLY * max(rates.values())
        return max(count for count, rate in rates.items() if rate >= enough)

    def _hoped_ms(self, sequences: int) -> float:
        hope: float = HOPE ** (self._notes - self._noted_at.get(sequences, self._notes))
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


def neighbours(decoding: Sequence[Text], most: int) -> list[Text]:
    """The sequence that has waited longest, and up to `most` - 1 more in the slots beside it: llama.cpp reads
    the weights once for each run of neighbouring slots."""
    by_slot = {sequence.slot: sequence for sequence in decoding}
    run = [decoding[0]]
    low = high = decoding[0].slot
    while len(run) < most and (high + 1 in by_slot or low - 1 in by_slot):
        if high + 1 in by_slot:
            high += 1
            run.append(by_slot[high])
        else:
            low -= 1
            run.append(by_slot[low])
    return run
