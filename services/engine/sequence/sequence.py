"""The state of one prompt on its way through the engine: its tokens, its slot, its text."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from schemas.errors import ChoirError
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.engine.decode.sampler import TokenSampler
from services.engine.model.model import Model, Tokens
from services.engine.sequence.answer_reader import AnswerForm, DecodedPiece
from services.engine.sequence.generation import (
    Finished,
    FinishReason,
    FirstToken,
    Generation,
    OnEvent,
    StopDetail,
    TokenEvent,
    TokenLogprob,
)
from services.engine.sequence.text_stream import TextStream

NO_SLOT = -1

logger = logging.getLogger(__name__)


class Ending(NamedTuple):
    """Why a text ends, as finish() takes it."""

    reason: FinishReason
    detail: StopDetail
    stop_string: str | None = None


class Sequence:
    """The state of one generation. Only the inference thread touches it after submission. `tokens` are the
    prompt's and those of the text; `fed` of them have been evaluated, or are on their way to be.
    `origin` says whose the prompt is, `begins_added` that its first token is not in the text that was
    given."""

    def __init__(
        self,
        prompt: Tokens,
        sampling: Sampling,
        sampler: TokenSampler,
        generation: Generation,
        on_event: OnEvent | None = None,
        form: AnswerForm | None = None,
        origin: Origin = NOBODY,
    ) -> None:
        self.prompt = prompt
        self.origin = origin
        self.tokens: list[int] = prompt.tolist()
        self.sampling = sampling
        self.sampler = sampler
        self.generation = generation
        self.prefix_reused = 0
        self.generated = 0
        self.slot = NO_SLOT
        self.fed = 0
        self._on_event = on_event
        self._stream = TextStream(sampling.stop, form)
        self.begins_added = False
        self.prompt_logprobs: list[FirstToken | TokenLogprob] = []
        self._logprobs: list[TokenLogprob] = []
        self._logprobs_sent = 0
        self._submitted_ns = time.perf_counter_ns()
        self._admitted_ns = 0
        self._first_token_ns = 0

    @property
    def due(self) -> int:
        """How many known tokens have not been fed."""
        return len(self.tokens) - self.fed

    @property
    def ready(self) -> int:
        """How many of them may be fed in one step."""
        return self.due

    @property
    def decodes(self) -> bool:
        """Whether the next step of this text is its newest token."""
        return self.generated > 0 and self.due == 1

    @property
    def kept(self) -> int:
        """How many of its first tokens are certain to be in the cells, should the text end now."""
        return self.fed

    @property
    def cancelled(self) -> bool:
        """Whether the caller has lost interest."""
        return self.generation.cancelled

    def admit(self, prefix_reused: int) -> None:
        """Notes that a slot was found, which held the first `prefix_reused` tokens already."""
        self.prefix_reused = prefix_reused
        self._admitted_ns = time.perf_counter_ns()

    def follow(
        self,
        model: Model,
        token: int | None,
        context_tokens: int,
        logprob: Callable[[int], TokenLogprob] | None = None,
    ) -> Ending | None:
        """Takes the token that follows, None where a grammar lets none follow: why the text ends here, None
        if it goes on. `logprob` is asked for the probability of a token of the text."""
        self.note_first_token()
        if token is None:
            return Ending("stop", "grammar_end")
        if model.ends_generation(token):
            return Ending("stop", "end_of_generation")
        piece = model.piece(token, markers=self.reads)
        stop = self.append_token(token, piece, None if logprob is None else logprob(token))
        if stop is not None:
            return Ending("stop", "stop_string", stop)
        if self.generated >= self.sampling.max_tokens:
            return Ending("length", "max_tokens")
        if len(self.tokens) > context_tokens:
            return Ending("length", "context_full")
        return None

    def append_token(self, token: int, piece: bytes, logprob: TokenLogprob | None) -> str | None:
        """Adds a token to the text and tells the listener; the stop string that was met, if any."""
        self.tokens.append(token)
        self.generated += 1
        self.note_first_token()
        if logprob is not None:
            self._logprobs.append(logprob)
        decoded, stop = self._stream.feed(piece)
        self._emit_decoded(decoded)
        return stop

    def note_end(self, logprob: TokenLogprob) -> None:
        """Counts a token that ends the text, and tells its probability: whoever scores a text wants both."""
        self.generated += 1
        self._logprobs.append(logprob)

    @property
    def reads(self) -> bool:
        """Whether thinking and calls are told apart from the text, and so what tokens say of them is text."""
        return self._stream.reads

    def note_first_token(self) -> None:
        """Notes the time at which the model first answered."""
        self._first_token_ns = self._first_token_ns or time.perf_counter_ns()

    def end(self, ending: Ending) -> None:
        """finish() with what follow() said."""
        self.finish(ending.reason, detail=ending.detail, stop_string=ending.stop_string)

    def finish(
        self,
        reason: FinishReason,
        *,
        detail: StopDetail | None = None,
        stop_string: str | None = None,
        error: ChoirError | None = None,
    ) -> None:
        """Ends the generation: frees the sampler, shows what was held back, tells the outcome."""
        self.sampler.close()
        if stop_string is None:
            self._emit_decoded(self._stream.flush())
        finished = self._outcome(reason, detail, stop_string, error)
        self.generation.resolve(finished)
        self._emit(finished)

    def _outcome(
        self,
        reason: FinishReason,
        detail: StopDetail | None,
        stop_string: str | None,
        error: ChoirError | None,
    ) -> Finished:
        now = time.perf_counter_ns()
        admitted = self._admitted_ns or now
        first = self._first_token_ns or now
        return Finished(
            text=self._stream.text,
            finish_reason=reason,
            stop_detail=detail,
            stop_string=stop_string,
            prompt_tokens=len(self.prompt),
            generated_tokens=self.generated,
            prefix_reused_tokens=self.prefix_reused,
            queue_ns=admitted - self._submitted_ns,
            prompt_eval_ns=first - admitted,
            eval_ns=now - first,
            first_token_ns=first - self._submitted_ns if self._first_token_ns else 0,
            logprobs=tuple(self._logprobs),
            error=error,
            thinking=self._stream.thinking,
            calls=self._stream.calls,
            prompt_logprobs=tuple(self.prompt_logprobs),
        )

    def _emit_decoded(self, decoded: DecodedPiece) -> None:
        if not (decoded.text or decoded.thinking or decoded.calls):
            return
        new = tuple(self._logprobs[self._logprobs_sent :])
        self._logprobs_sent = len(self._logprobs)
        self._emit(TokenEvent(decoded.text, self.generated, new, decoded.thinking, decoded.calls))

    def _emit(self, event: TokenEvent | Finished) -> None:
        """Calls the listener. It is foreign code on the inference thread: should it fail, that is logged
        and ends this generation, not the others."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            logger.exception("the listener of a generation failed; the generation is cancelled")
            self._on_event = None
            self.generation.cancel()
