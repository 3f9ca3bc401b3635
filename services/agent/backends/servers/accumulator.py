"""Collects a streamed text from a server: its pieces, and when they came."""

from __future__ import annotations

import time
from typing import Any

from schemas.errors import WorkerFailed
from schemas.requests.chat import ToolCall
from services.agent.backends.backend import OnPiece
from services.tasks.token_stream import Piece

SPEED_WINDOW_S = 60.0
TOKEN_CHARACTERS = 64
MOST_CHARACTERS = 16 * 1024
"""Beside those of the tokens that were asked for."""


class StreamAccumulator:
    """Takes the pieces of one answer. Times are nanoseconds since the request was sent.

    A server that says far more than it was asked for is cut off: nothing else ends its stream.
    """

    def __init__(self, server: str, max_tokens: int, on_piece: OnPiece | None) -> None:
        self._server = server
        self._most_characters = MOST_CHARACTERS + max_tokens * TOKEN_CHARACTERS
        self._characters = 0
        self._on_piece = on_piece
        self._started_ns = time.perf_counter_ns()
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self.tool_calls: tuple[ToolCall, ...] = ()
        self.logprobs: list[dict[str, Any]] = []
        self.first_ns = 0
        self.last_ns = 0
        self.steps = 0

    async def take(self, text: str, thinking: str = "") -> None:
        """The next piece; an empty one is a token without visible text. Raises WorkerFailed when there is
        too much of it."""
        self.count(len(text) + len(thinking))
        now_ns = time.perf_counter_ns() - self._started_ns
        self.first_ns = self.first_ns or now_ns
        self.last_ns = now_ns
        self.steps += 1
        if text:
            self._pieces.append(text)
        if thinking:
            self._thoughts.append(thinking)
        if (text or thinking) and self._on_piece is not None:
            await self._on_piece(Piece(text=text, thinking=thinking))

    def count(self, characters: int) -> None:
        """Raises WorkerFailed when there are too many."""
        self._characters += characters
        if self._characters > self._most_characters:
            raise WorkerFailed(f"{self._server} goes on after max_tokens, and was cut off")

    async def take_calls(self, calls: tuple[ToolCall, ...]) -> None:
        """Whole calls."""
        self.tool_calls += calls
        if calls and self._on_piece is not None:
            await self._on_piece(Piece(tool_calls=calls))

    @property
    def thinking(self) -> str | None:
        """All of the thinking; None if there was none."""
        return "".join(self._thoughts) or None

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
