"""Collects a streamed text from a server: its pieces, and when they came."""

from __future__ import annotations

import time
from typing import Any

from schemas.errors import WorkerFailed
from services.agent.backends.backend import OnText

SPEED_WINDOW_S = 60.0
TOKEN_CHARACTERS = 64
MOST_CHARACTERS = 16 * 1024
"""Beside those of the tokens that were asked for."""


class Reception:
    """Takes the pieces of one answer. Times are nanoseconds since the request was sent.

    A server that says far more than it was asked for is cut off: nothing else ends its stream.
    """

    def __init__(self, server: str, max_tokens: int, on_text: OnText | None) -> None:
        self._server = server
        self._most_characters = MOST_CHARACTERS + max_tokens * TOKEN_CHARACTERS
        self._characters = 0
        self._on_text = on_text
        self._started_ns = time.perf_counter_ns()
        self._pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.first_ns = 0
        self.last_ns = 0
        self.steps = 0

    async def take(self, text: str) -> None:
        """The next piece; an empty one is a token without visible text. Raises WorkerFailed when there is
        too much of it."""
        self._characters += len(text)
        if self._characters > self._most_characters:
            raise WorkerFailed(f"{self._server} goes on after max_tokens, and was cut off")
        now_ns = time.perf_counter_ns() - self._started_ns
        self.first_ns = self.first_ns or now_ns
        self.last_ns = now_ns
        self.steps += 1
        if text:
            self._pieces.append(text)
            if self._on_text is not None:
                await self._on_text(text)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    @property
    def pieces(self) -> int:
        """How many pieces had text."""
        return len(self._pieces)

    @property
    def eval_ns(self) -> int:
        """From the first piece to the last."""
        return self.last_ns - self.first_ns


class SpeedMeter:
    """Tokens per second of a server over all its slots, while it had something to do.

    Older measurements fade: after a minute of work they count half.
    """

    def __init__(self) -> None:
        self._working = 0
        self._since_s = 0.0
        self._busy_s = 0.0
        self._tokens = 0.0

    def begin(self) -> None:
        """One more generation runs."""
        if self._working == 0:
            self._since_s = time.monotonic()
        self._working += 1

    def end(self, tokens: int) -> None:
        """One of them is over, and has made so many tokens."""
        now_s = time.monotonic()
        self._busy_s += now_s - self._since_s
        self._since_s = now_s
        self._working -= 1
        self._tokens += tokens
        if self._busy_s > SPEED_WINDOW_S:
            self._busy_s, self._tokens = self._busy_s / 2, self._tokens / 2

    def tokens_per_s(self) -> float | None:
        """None before anything was generated."""
        return self._tokens / self._busy_s if self._tokens and self._busy_s else None
