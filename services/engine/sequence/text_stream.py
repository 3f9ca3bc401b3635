"""Turns the bytes of tokens into text that may be shown: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs

from schemas.requests.chat import ToolCall
from services.engine.sequence.answer_reader import AnswerForm, AnswerReader, DecodedPiece

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """The text of one generation: whole UTF-8 characters only, and nothing of a stop string.

    With a `form` thinking and calls are told apart from the text; stop strings are looked for in the text.
    """

    def __init__(self, stops: tuple[str, ...], form: AnswerForm | None = None) -> None:
        self._decoder = _new_decoder(errors="replace")
        self._reader = None if form is None else AnswerReader(form)
        self._stops = StopStrings(stops)
        self._shown: list[str] = []
        self._thoughts: list[str] = []
        self.calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        """Everything that was shown."""
        return "".join(self._shown)

    @property
    def thinking(self) -> str:
        """All thinking that was shown."""
        return "".join(self._thoughts)

    @property
    def reads(self) -> bool:
        """Whether more than text is looked for."""
        return self._reader is not None

    def feed(self, piece: bytes) -> tuple[DecodedPiece, str | None]:
        """What to show after a token's bytes, and the stop string that was met, if any."""
        text = self._decoder.decode(piece)
        return self._take(DecodedPiece(text) if self._reader is None else self._reader.feed(text))

    def flush(self) -> DecodedPiece:
        """What to show at the end: what was held back, but no half of a character."""
        left = DecodedPiece() if self._reader is None else self._reader.flush()
        shown, stop = self._take(left)
        held = "" if stop is not None else self._stops.flush()
        self._shown.append(held)
        return DecodedPiece(shown.text + held, shown.thinking, shown.calls)

    def _take(self, decoded: DecodedPiece) -> tuple[DecodedPiece, str | None]:
        """Calls that come after a stop string are not made."""
        shown, stop = self._stops.feed(decoded.text) if decoded.text else ("", None)
        calls = decoded.calls if stop is None else ()
        self._shown.append(shown)
        self._thoughts.append(decoded.thinking)
        self.calls += calls
        return DecodedPiece(shown, decoded.thinking, calls), stop


class StopStrings:
    """Passes text on, except what may still turn out to be the beginning of a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that is safe to show now, and the stop string that was met, if any. After one was met
        nothing more may be fed."""
        if not self._stops:
            return text, None
        self._held += text
        found = self._first_stop()
        if found is not None:
            place, stop = found
            shown, self._held = self._held[:place], ""
            return shown, stop
        safe = len(self._held) - self._possible_beginning()
        shown, self._held = self._held[:safe], self._held[safe:]
        return shown, None

    def flush(self) -> str:
        """What was held back, once it is known that nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self) -> tuple[int, str] | None:
        """The earliest stop string, at one place the longest."""
        places = [(self._held.find(stop), -len(stop), stop) for stop in self._stops]
        place, _, stop = min((found for found in places if found[0] >= 0), default=(-1, 0, ""))
        return (place, stop) if place >= 0 else None

    def _possible_beginning(self) -> int:
        """The length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
