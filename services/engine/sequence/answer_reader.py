"""Reads what a model writes while it writes it: thinking, the answer's text, tool calls. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from schemas.requests.chat import ToolCall
from services.engine.sequence.tool_calls import OPENERS, read_calls, with_ids

THINKING_BEGINS, THINKING_ENDS = "<think>", "</think>"

State = Literal["start", "thinking", "text", "call", "object"]


@dataclass(frozen=True, slots=True)
class DecodedPiece:
    """Pieces of an answer: of its text, of the thinking before it, and whole calls."""

    text: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What may be in the texts of one prompt.

    `thinks`: thinking between `<think>` and `</think>`; `in_thinking`: the prompt has begun it already.
    `tools`: names of the tools that may be called; `whole_object`: a text that is one JSON object with such a
    name is a call as well. `salt` makes the ids of calls those of this prompt.
    """

    thinks: bool = False
    in_thinking: bool = False
    tools: frozenset[str] = frozenset()
    whole_object: bool = False
    salt: str = ""


class AnswerReader:
    """Takes pieces of text, and tells them apart as soon as that can be said."""

    def __init__(self, form: AnswerForm) -> None:
        self._form = form
        self._state: State = "thinking" if form.in_thinking else "start"
        self._held = ""
        self._opener = ""
        self._calls = 0
        self._after_thinking = False
        self._thought = False

    def feed(self, piece: str) -> DecodedPiece:
        """What is known to be what, after the next piece."""
        self._held += piece
        return self._read(last=False)

    def flush(self) -> DecodedPiece:
        """The rest, once nothing more comes. A call that was not finished, or is none, is text."""
        return self._read(last=True)

    def _read(self, *, last: bool) -> DecodedPiece:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        while True:
            before = (self._state, self._held)
            match self._state:
                case "start":
                    self._begin(last=last)
                case "thinking":
                    thoughts.append(self._read_thinking(last=last))
                case "text":
                    texts.append(self._read_text(last=last))
                case "call" | "object":
                    text, called = self._read_call(last=last)
                    texts.append(text)
                    calls += called
            if before == (self._state, self._held):
                return DecodedPiece("".join(texts), "".join(thoughts), tuple(calls))

    def _begin(self, *, last: bool) -> None:
        """White space before the first word says nothing of what comes."""
        said = self._held.lstrip()
        if self._form.thinks and not self._thought and said.startswith(THINKING_BEGINS):
            self._state, self._held = "thinking", said.removeprefix(THINKING_BEGINS)
        elif self._form.whole_object and said.startswith("{"):
            self._state, self._held = "object", said
        elif last or (said and not self._may_become_thinking(said)):
            self._state, self._held = "text", said if self._after_thinking else self._held

    def _may_become_thinking(self, said: str) -> bool:
        return self._form.thinks and not self._thought and THINKING_BEGINS.startswith(said)

    def _read_thinking(self, *, last: bool) -> str:
        if not self._thought:
            self._held = self._held.lstrip()
            self._thought = bool(self._held)
        thought, closer, rest = self._held.partition(THINKING_ENDS)
        if closer:
            self._state, self._held = "start", rest
            self._thought = self._after_thinking = True
            return thought.rstrip()
        if last:
            self._held = ""
            return thought.rstrip()
        return self._release(_undecided(thought, (THINKING_ENDS,), hold_space=True))

    def _read_text(self, *, last: bool) -> str:
        if not self._form.tools:
            return self._release(0)
        found = [(at, opener) for opener in OPENERS if (at := self._held.find(opener)) >= 0]
        if found:
            at, self._opener = min(found)
            text, self._held = self._held[:at], self._held[at + len(self._opener) :]
            self._state = "call"
            return text.rstrip()
        return self._release(0 if last else _undecided(self._held, tuple(OPENERS), hold_space=True))

    def _release(self, undecided: int) -> str:
        """All that is held but its last characters."""
        at = len(self._held) - undecided
        said, self._held = self._held[:at], self._held[at:]
        return said

    def _read_call(self, *, last: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """A call that is complete, and what turned out to be text."""
        if self._state == "object":
            if not last:
                return "", ()
            written, self._held, ending = self._held, "", ""
        else:
            closer = OPENERS[self._opener]
            at = self._held.find(closer or self._opener)
            if at < 0 and not last:
                return "", ()
            ending = (closer or "") if at >= 0 else ""
            written = self._held if at < 0 else self._held[:at]
            self._held = "" if at < 0 else self._held[at + len(ending) :]
        calls = read_calls(written, self._form.tools if self._state == "object" else ())
        made = None if calls is None else with_ids(calls, self._calls, self._form.salt)
        opener, self._opener = self._opener, ""
        if made is None:
            self._state = "text"
            return f"{opener}{written}{ending}", ()
        self._calls += len(made)
        self._state, self._after_thinking = "start", True
        return "", made


def _undecided(text: str, words: Collection[str], *, hold_space: bool) -> int:
    """How many characters at the end may be the beginning of one of `words`, or white space before it."""
    longest = min(len(text), max(map(len, words)) - 1)
    length = next((n for n in range(longest, 0, -1) if any(word.startswith(text[-n:]) for word in words)), 0)
    rest = text[: len(text) - length]
    return length + (len(rest) - len(rest.rstrip()) if hold_space else 0)
