"""The way that a stream goes: counts what is shown, and leaves out what its client has had."""

from __future__ import annotations

import zlib
from typing import TypeVar

from services.gateway.openai.streams.place import Place
from services.gateway.requests.shown import begun_again

TokenT = TypeVar("TokenT")


class _Counted:
    """A text as it grows, of which `had` characters are known to the client: how long it is, and the sum over
    what is known and over all of it."""

    def __init__(self, had: int) -> None:
        self._had = had
        self.length = 0
        self.had_check = 0
        self.check = 0

    def add(self, piece: str) -> str:
        """The part of a piece that is new to the client."""
        known = max(0, self._had - self.length)
        if known:
            self.had_check = zlib.crc32(piece[:known].encode(), self.had_check)
        self.check = zlib.crc32(piece.encode(), self.check)
        self.length += len(piece)
        return piece[known:] if known else piece

    @property
    def is_behind(self) -> bool:
        """Whether the client has had more than there is by now."""
        return self.length < self._had


class Track:
    """One stream. What is told here from its very beginning comes back without what was shown before `had`.

    A text that is not the one of which something was shown is GenerationFailed.
    """

    def __init__(self, request_id: str, had: Place | None = None) -> None:
        self._before = f"id: {request_id}:".encode()
        self._had = had
        self._begin(0)

    def _begin(self, choice: int) -> None:
        had = self._had if self._had is not None and self._had.choice == choice else None
        self._choice = choice
        self._past = self._had is not None and choice < self._had.choice
        self._unchecked = had
        self._thinking = _Counted(had.thinking if had else 0)
        self._text = _Counted(had.text if had else 0)
        self._told, self._had_told = 0, had.tokens if had else 0
        self._closing, self._had_closing = 0, had.closing if had else 0

    def begin(self, choice: int) -> bool:
        """The next of several texts; says whether its first event is new."""
        self._begin(choice)
        return self._had is None or choice > self._had.choice

    def think(self, piece: str) -> str:
        """A piece of what is thought; gives what is new of it."""
        return self._new(self._thinking, piece)

    def say(self, piece: str) -> str:
        """A piece of the text; gives what is new of it."""
        return self._new(self._text, piece)

    def _new(self, counted: _Counted, piece: str) -> str:
        if not piece:
            return ""
        new = counted.add(piece)
        if self._past or not new:
            return ""
        self._check()
        return new

    def tell(self, tokens: tuple[TokenT, ...]) -> tuple[TokenT, ...]:
        """Tokens that are told with their probabilities; gives those that are new."""
        known = max(0, self._had_told - self._told)
        self._told += len(tokens)
        return tokens[known:]

    @property
    def told(self) -> int:
        """How many tokens the client knows the probabilities of."""
        return max(self._told, self._had_told)

    def close(self) -> bool:
        """One more event after the text; says whether it is new."""
        self._closing += 1
        if self._past or self._closing <= self._had_closing:
            return False
        self._check()
        return True

    def _check(self) -> None:
        """Before the first new event: what was shown must be how this text begins."""
        if self._unchecked is None:
            return
        if self._thinking.is_behind or self._text.is_behind:
            raise begun_again()
        if self._thinking.had_check ^ self._text.had_check != self._unchecked.check:
            raise begun_again()
        self._unchecked = None

    def stamp(self, event: bytes) -> bytes:
        """An event with the id of the place that it leads to."""
        place = (
            f"{self._choice}.{self._thinking.length}.{self._text.length}.{self.told}.{self._closing}."
            f"{self._thinking.check ^ self._text.check:x}\n"
        )
        return self._before + place.encode() + event
