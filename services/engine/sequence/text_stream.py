"""Turns the bytes of tokens into text that may be shown."""

from __future__ import annotations

import codecs

from schemas.chat import ToolCall
from services.engine.sequence.answer_reader import AnswerForm, AnswerReader, Spoken
from services.engine.sequence.stop_strings import StopStrings

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

    def feed(self, piece: bytes) -> tuple[Spoken, str | None]:
        """What to show after a token's bytes, and the stop string that was met, if any."""
        text = self._decoder.decode(piece)
        return self._take(Spoken(text) if self._reader is None else self._reader.feed(text))

    def flush(self) -> Spoken:
        """What to show at the end: what was held back, but no half of a character."""
        left = Spoken() if self._reader is None else self._reader.flush()
        shown, stop = self._take(left)
        held = "" if stop is not None else self._stops.flush()
        self._shown.append(held)
        return Spoken(shown.text + held, shown.thinking, shown.calls)

    def _take(self, spoken: Spoken) -> tuple[Spoken, str | None]:
        """Calls that come after a stop string are not made."""
        shown, stop = self._stops.feed(spoken.text) if spoken.text else ("", None)
        calls = spoken.calls if stop is None else ()
        self._shown.append(shown)
        self._thoughts.append(spoken.thinking)
        self.calls += calls
        return Spoken(shown, spoken.thinking, calls), stop
