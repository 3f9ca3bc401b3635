"""The output of the engine: events while a text is generated, and the handle to wait or cancel with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from schemas.errors import ChoirError, DeadlineExceeded
from schemas.requests.chat import ToolCall

FinishReason = Literal["stop", "length", "cancelled", "error"]
StopDetail = Literal["end_of_generation", "stop_string", "grammar_end", "max_tokens", "context_full"]


@dataclass(frozen=True, slots=True)
class RankedToken:
    """A token that could have come, with its natural logarithm of probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The token that came, and the most probable ones in its place (the model's own distribution,
    before temperature, filters and grammar)."""

    token_id: int
    text: str
    logprob: float
    top: tuple[RankedToken, ...]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first token of a prompt: nothing comes before it, so it has no probability. One that is `added` is
    not in the text that was given: the model has it before each."""

    token_id: int
    text: str
    added: bool = False


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New text of a generation; `generated_tokens` counts from its start. Several tokens may share an event,
    where text had to be held back. `logprobs` are those of the tokens since the last event. Thinking and
    whole calls come as they are told apart from the text."""

    text: str
    generated_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a generation, exactly one for each. `text` is what the events said, joined.

    `queue_ns` runs from submission to a slot, `prompt_eval_ns` from there to the first token, `eval_ns`
    from there to the end; `first_token_ns` is the sum of the first two, 0 if no token came.
    `logprobs` cover every generated token, also those that a stop string took back. `prompt_logprobs` cover
    the prompt's tokens, where they were asked for; the first has no probability.
    """

    text: str
    finish_reason: FinishReason
    stop_detail: StopDetail | None = None
    stop_string: str | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_reused_tokens: int = 0
    queue_ns: int = 0
    prompt_eval_ns: int = 0
    eval_ns: int = 0
    first_token_ns: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    error: ChoirError | None = None
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    prompt_logprobs: tuple[FirstToken | TokenLogprob, ...] = ()


OnEvent = Callable[[TokenEvent | Finished], None]


class Generation:
    """The caller's end of one submitted prompt. Every method may be called from any thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._done = threading.Event()
        self._finished: Finished | None = None
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether cancel() was called."""
        return self._cancelled

    @property
    def finished(self) -> Finished | None:
        """The outcome, or None while there is none."""
        return self._finished

    def cancel(self) -> None:
        """Ends the generation before its next token; it finishes as "cancelled" with the text so far."""
        self._cancelled = True
        self._wake()

    def wait(self, timeout_s: float | None = None) -> Finished:
        """Blocks until the outcome; raises DeadlineExceeded when it takes longer than `timeout_s`."""
        self._done.wait(timeout_s)
        if self._finished is None:
            raise DeadlineExceeded(f"the generation took longer than {timeout_s} s")
        return self._finished

    def resolve(self, finished: Finished) -> None:
        """Called once by the engine, with the outcome."""
        self._finished = finished
        self._done.set()
