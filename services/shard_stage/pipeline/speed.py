"""Measures how fast tokens come out of a pipeline while it works."""

from __future__ import annotations

from collections import deque

KEPT_ARRIVALS = 128
LEAST_ARRIVALS = 8
"""Fewer say little: what was measured before stands until then."""


class Speed:
    """The rate of the last tokens, over all sequences. Times in which nothing is generated do not count.

    Told on the inference thread, read from any."""

    def __init__(self) -> None:
        self._arrivals_s: deque[float] = deque(maxlen=KEPT_ARRIVALS)
        self._per_s: float | None = None
        self._is_sound = False

    def token(self, now_s: float) -> None:
        """A token has come."""
        self._arrivals_s.append(now_s)
        count, took_s = len(self._arrivals_s), now_s - self._arrivals_s[0]
        if took_s > 0 and (count >= LEAST_ARRIVALS or not self._is_sound):
            self._per_s = (count - 1) / took_s
            self._is_sound = count >= LEAST_ARRIVALS

    def pause(self) -> None:
        """Nothing is generated until the next token."""
        self._arrivals_s.clear()

    @property
    def per_s(self) -> float | None:
        """Tokens a second; None before the first two."""
        return self._per_s
