"""Turns the bytes of tokens into text that may be shown."""

from __future__ import annotations

import codecs

from services.engine.sequence.stop_strings import StopStrings

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """The text of one generation: whole UTF-8 characters only, and nothing of a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._decoder = _new_decoder(errors="replace")
        self._stops = StopStrings(stops)
        self._shown: list[str] = []

    @property
    def text(self) -> str:
        """Everything that was shown."""
        return "".join(self._shown)

    def feed(self, piece: bytes) -> tuple[str, str | None]:
        """The text to show after a token's bytes, and the stop string that was met, if any."""
        shown, stop = self._stops.feed(self._decoder.decode(piece))
        self._shown.append(shown)
        return shown, stop

    def flush(self) -> str:
        """The text to show at the end: what was held back, but no half of a character."""
        held = self._stops.flush()
        self._shown.append(held)
        return held
