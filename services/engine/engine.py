"""The engine: a model, its context and the inference thread, behind a thread-safe interface."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from schemas.commands import Tokenize
from schemas.errors import (
    ConfigurationError,
    ContextExceeded,
    GenerationFailed,
    InvalidRequest,
    ModelUnusable,
    WorkerFailed,
)
from schemas.replies import Tokenized
from schemas.sampling import Sampling
from services.engine.decode.context import Context
from services.engine.decode.grammar import SCHEMA_FIELD
from services.engine.decode.sampler import REPEAT_LAST, TokenSampler, new_sampler
from services.engine.embedder import Embedded, Embedder
from services.engine.model.chat_format import ChatFormat
from services.engine.model.info import EngineStats, ModelInfo, describe
from services.engine.model.model import Model, Tokens
from services.engine.model.plain_text import Piece
from services.engine.model.slicing import SLICE_PREFIX
from services.engine.scheduler import Scheduler
from services.engine.scorer import Scorer
from services.engine.sequence.answer_reader import AnswerForm
from services.engine.sequence.generation import Finished, Generation, OnEvent
from services.engine.sequence.prompt import Prompt, TokenPrompt
from services.engine.sequence.sequence import Sequence
from services.engine.tokenizing import tokenized

CONTEXT_TOKENS_CAP = 4096
MAX_SLOTS = 256
WEIGHTS_BYTES_PER_THREAD = 64_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt as text in `pieces`, or as `tokens`; how it is gone on with, and what may be in the answer."""

    sampling: Sampling
    pieces: tuple[Piece, ...] = ()
    tokens: Tokens | None = None
    form: AnswerForm | None = None


class Engine:
    """A continuous-batching llama.cpp engine: one model, one context, some slots, one inference thread.

    Every method may be called from any thread. A context manager that closes itself.
    """

    def __init__(
        self,
        model: Model,
        context: Context,
        scheduler: Scheduler,
        chats: ChatFormat,
        scorer: Scorer,
        embedder: Embedder,
        context_tokens: int,
    ) -> None:
        """Takes over what it is given and starts the thread; Engine.load() is the way to one."""
        self.info: ModelInfo = describe(model, context_tokens)
        self._model = model
        self._context = context
        self._scheduler = scheduler
        self._chats = chats
        self._scorer = scorer
        self._embedder = embedder
        self._closed = False
        # Held while the vocabulary is used, so that close() cannot free it meanwhile.
        self._vocabulary_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"engine {self.info.name}", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        slots: int = 4,
        context_tokens: int | None = None,
        batch_tokens: int = 512,
        threads: int | None = None,
        gpu_layers: int = 0,
    ) -> Engine:
        """Loads a model file, blocking. `slots` sequences run at a time, each with room for `context_tokens`:
        by default 4096, and never more than the model was trained for. `batch_tokens` is the most that one
        step evaluates. `threads` is by default as many of the cores as a model of this size makes use of.

        Raises ModelUnusable with a sentence that names the file and what is wrong with it, and
        ConfigurationError for numbers that cannot be.
        """
        _check_numbers(slots, context_tokens, batch_tokens, threads)
        model = Model(path, gpu_layers=gpu_layers)
        try:
            _require_whole(model)
            chats = _chats_of(model)
            room = min(model.trained_context_tokens, context_tokens or CONTEXT_TOKENS_CAP)
            batch_tokens = max(min(batch_tokens, room), slots)
            threads = threads or sensible_threads(model.weights_bytes)
            exact = gpu_layers == 0
            context = Context(
                model,
                slots=slots,
                context_tokens=room,
                batch_tokens=batch_tokens,
                threads=threads,
                exact=exact,
            )
            scheduler = Scheduler(model, context, slots=slots, context_tokens=room, batch_tokens=batch_tokens)
            scorer = Scorer(
                model, context_tokens=room, batch_tokens=batch_tokens, threads=threads, exact=exact
            )
            embedder = Embedder(model, context_tokens=room, threads=threads)
            return cls(model, context, scheduler, chats, scorer, embedder, room)
        except ModelUnusable:
            model.close()
            raise

    def submit(self, prompt: Prompt, sampling: Sampling, on_event: OnEvent | None = None) -> Generation:
        """Queues a prompt and returns at once. `on_event` is called on the inference thread with every
        TokenEvent and, last, with Finished; it must not block.

        Raises ContextExceeded for a prompt that does not leave room for a token, InvalidRequest for messages
        or a constraint that cannot be used, GenerationFailed when the engine is closed, WorkerFailed when its
        thread has ended by a defect.
        """
        if not self.generates:
            raise InvalidRequest(f"model: {self.info.name} gives vectors, and no text", field="model")
        prepared = self._prepare(prompt, sampling)
        with self._vocabulary_lock:
            self._require_open()
            tokens = self._tokenize(prepared)
        sampler = self._sampler(prepared.sampling, tokens, forced=prepared.sampling is not sampling)
        generation = Generation(self._scheduler.wake)
        sequence = Sequence(tokens, prepared.sampling, sampler, generation, on_event, prepared.form)
        try:
            (self._scorer if sampling.prompt_logprobs else self._scheduler).submit(sequence)
        except (GenerationFailed, WorkerFailed):
            sampler.close()
            raise
        return generation

    def _sampler(self, sampling: Sampling, prompt: Tokens, *, forced: bool) -> TokenSampler:
        """A constraint that was made of the tools is told by their name."""
        try:
            return new_sampler(self._model, sampling, prompt=prompt.tolist()[-REPEAT_LAST:])
        except InvalidRequest as error:
            if forced and error.field == SCHEMA_FIELD:
                raise InvalidRequest(f"tools: {error.message}", field="tools") from error
            raise

    def generate(self, prompt: Prompt, sampling: Sampling | None = None) -> Finished:
        """submit() and the wait for its outcome; raises the outcome's error if it has one."""
        finished = self.submit(prompt, sampling or Sampling()).wait()
        if finished.error is not None:
            raise finished.error
        return finished

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens a prompt has, however many the context holds."""
        prepared = self._prepare(prompt, Sampling())
        with self._vocabulary_lock:
            self._require_open()
            return len(self._tokens_of(prepared))

    def tokenize(self, request: Tokenize) -> Tokenized:
        """Tokens of a text or of messages, the text of tokens, or what is known of the tokenizer."""
        with self._vocabulary_lock:
            self._require_open()
            return tokenized(self._model, self._chats, request, self.info.context_tokens)

    def embed(self, text: str, *, dimensions: int | None = None, truncate: bool = False) -> Embedded:
        """The vector of a text, computed on the caller's thread. Raises ContextExceeded, InvalidRequest,
        GenerationFailed."""
        with self._vocabulary_lock:
            self._require_open()
            tokens = self._model.tokenize(text, special=False)
        return self._embedder.embed(tokens, dimensions=dimensions, truncate=truncate)

    @property
    def generates(self) -> bool:
        """Whether the model goes on with texts; one that does not gives vectors."""
        return self._model.generates

    @property
    def thinks(self) -> bool:
        """Whether the model's template knows of thinking apart from an answer."""
        return self._chats.template.thinks

    def stats(self) -> EngineStats:
        """What the engine is doing, and its totals."""
        return self._scheduler.stats()

    @property
    def failure(self) -> WorkerFailed | None:
        """The defect that has ended the inference thread, after which nothing is generated; None without
        one."""
        return self._scheduler.failure

    def step_s(self) -> float:
        """For how long the inference thread has been at its present step, in seconds; 0 while it waits."""
        return self._scheduler.step_s()

    def close(self, patience_s: float | None = None) -> bool:
        """Ends the inference thread after the step at hand and frees llama.cpp's memory. Generations that are
        not done finish with an error. Calling it again does nothing.

        False if the step at hand has taken longer than `patience_s`: what it works on is not freed then.
        """
        with self._vocabulary_lock:
            if self._closed:
                return not self._thread.is_alive()
            self._closed = True
        self._scheduler.stop()
        self._thread.join(patience_s)
        if self._thread.is_alive() or not self._scorer.stop(patience_s):
            return False
        self._embedder.close()
        self._context.close()
        self._model.close()
        return True

    def _run(self) -> None:
        """The inference thread. Who submits sees its failure; the log has the whole of it."""
        try:
            self._scheduler.run()
        except Exception:
            logger.exception("the inference thread of %s has ended by a defect", self.info.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, prompt: Prompt, sampling: Sampling) -> PreparedPrompt:
        match prompt:
            case str():
                if not prompt:
                    raise InvalidRequest("the prompt is empty", field="prompt")
                return PreparedPrompt(sampling, pieces=(Piece(prompt),))
            case TokenPrompt():
                for place, token in enumerate(prompt.tokens):
                    if token >= self._model.vocab_size:
                        raise InvalidRequest(
                            f"raw.tokens.{place}: the model has no token {token}", field=f"raw.tokens.{place}"
                        )
                return PreparedPrompt(sampling, tokens=np.asarray(prompt.tokens, dtype=np.int32))
            case _:
                chat = self._chats.prepare(prompt, sampling)
                if not chat.pieces:
                    raise InvalidRequest("the prompt is empty", field="prompt")
                return PreparedPrompt(chat.sampling, pieces=chat.pieces, form=chat.form)

    def _tokens_of(self, prepared: PreparedPrompt) -> Tokens:
        if prepared.tokens is not None:
            return prepared.tokens
        return self._model.tokenize_pieces(prepared.pieces)

    def _tokenize(self, prepared: PreparedPrompt) -> Tokens:
        """The tokens of a prompt that fits; one that cannot fit is refused before it is tokenized."""
        room = self.info.context_tokens
        least = sum(len(piece.text) for piece in prepared.pieces) // self._model.longest_token_bytes
        tokens = self._tokens_of(prepared) if least < room else None
        if tokens is None or len(tokens) >= room:
            count = f"at least {least}" if tokens is None else str(len(tokens))
            raise ContextExceeded(
                f"the prompt has {count} tokens; the context of {self.info.name} holds {room}", field="prompt"
            )
        if not len(tokens):
            raise InvalidRequest("the prompt has no tokens", field="prompt")
        return tokens

    def _require_open(self) -> None:
        if self._closed:
            raise GenerationFailed("the engine is closed")


def sensible_threads(weights_bytes: int) -> int:
    """How many threads a model is worth: in a small one they would mostly wait for one another."""
    return min(usable_cores(), 1 + weights_bytes // WEIGHTS_BYTES_PER_THREAD)


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_whole(model: Model) -> None:
    if any(key.startswith(SLICE_PREFIX) for key in model.header.metadata):
        reason = "it is a slice of a model, for a stage of a pipeline"
        raise ModelUnusable(f"the model file {model.path} is not usable: {reason}")


def _chats_of(model: Model) -> ChatFormat:
    try:
        return ChatFormat.of(model)
    except ModelUnusable as error:
        raise ModelUnusable(f"the model file {model.path} is not usable: {error.message}") from error


def _check_numbers(slots: int, context_tokens: int | None, batch_tokens: int, threads: int | None) -> None:
    if not 1 <= slots <= MAX_SLOTS:
        raise ConfigurationError(f"slots is {slots}; 1 to {MAX_SLOTS} are possible", field="slots")
    numbers = {"context_tokens": context_tokens, "batch_tokens": batch_tokens, "threads": threads}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} is {value}; it is at least 1", field=name)
