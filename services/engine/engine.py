"""The engine: a model, its context and the inference thread, behind a thread-safe interface."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.commands import Tokenize
from schemas.errors import (
    ConfigurationError,
    GenerationFailed,
    InvalidRequest,
    ModelUnusable,
    WorkerFailed,
)
from schemas.replies import Tokenized
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.engine.batching.inference_loop import InferenceLoop
from services.engine.batching.thread_count import ThreadTuner
from services.engine.decode.context import Context
from services.engine.embedder import Embedded, Embedder
from services.engine.model.chat.format import ChatFormat
from services.engine.model.info import EngineStats, ModelInfo, describe
from services.engine.model.memory.need import BATCH_TOKENS, room_of
from services.engine.model.model import Model
from services.engine.model.slicing import SLICE_PREFIX
from services.engine.prompt_reader import PromptReader
from services.engine.scorer import Scorer
from services.engine.sequence.generation import Finished, Generation, OnEvent
from services.engine.sequence.prompt import Prompt
from services.engine.sequence.sequence import Sequence
from services.engine.tokenizing import tokenized

MAX_SLOTS = 256
WEIGHTS_BYTES_PER_THREAD = 64_000_000

logger = logging.getLogger(__name__)


class Engine:
    """A continuous-batching llama.cpp engine: one model, one context, some slots, one inference thread.

    Every method may be called from any thread. A context manager that closes itself.
    """

    def __init__(
        self,
        model: Model,
        context: Context,
        loop: InferenceLoop,
        chats: ChatFormat,
        scorer: Scorer,
        embedder: Embedder,
        context_tokens: int,
    ) -> None:
        """Takes over what it is given and starts the thread; Engine.load() is the way to one."""
        self.info: ModelInfo = describe(model, context_tokens)
        self._model = model
        self._context = context
        self._loop = loop
        self._chats = chats
        self._prompts = PromptReader(model, chats, context_tokens, self.info.name)
        self._scorer = scorer
        self._embedder = embedder
        self._closed = False
        # Held while the vocabulary is used, so that close() cannot free it meanwhile.
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"engine {self.info.name}", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        slots: int = 4,
        context_tokens: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        threads: int | None = None,
        fixed_threads: bool = False,
        gpu_layers: int = 0,
    ) -> Engine:
        """Loads a model file, blocking. `slots` sequences run at a time, each with room for `context_tokens`:
        by default 4096, and never more than the model was trained for. `batch_tokens` is the most that one
        step evaluates. `threads` is by default as many of the cores as a model of this size makes use of;
        steps have fewer where those are faster, as beside other programs, unless `fixed_threads`.

        Raises ModelUnusable with a sentence that names the file and what is wrong with it, and
        ConfigurationError for numbers that cannot be.
        """
        _check_numbers(slots, context_tokens, batch_tokens, threads)
        model = Model(path, gpu_layers=gpu_layers)
        try:
            _require_whole(model)
            chats = _chats_of(model)
            room = room_of(model.trained_context_tokens, context_tokens)
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
            loop = InferenceLoop(
                model,
                context,
                slots=slots,
                context_tokens=room,
                batch_tokens=batch_tokens,
                threads=None if fixed_threads or threads == 1 or not exact else ThreadTuner(threads),
            )
            scorer = Scorer(
                model, context_tokens=room, batch_tokens=batch_tokens, threads=threads, exact=exact
            )
            embedder = Embedder(model, context_tokens=room, threads=threads)
            return cls(model, context, loop, chats, scorer, embedder, room)
        except ModelUnusable:
            model.close()
            raise

    def submit(
        self,
        prompt: Prompt,
        sampling: Sampling,
        on_event: OnEvent | None = None,
        origin: Origin = NOBODY,
    ) -> Generation:
        """Queues a prompt and returns at once. `on_event` is called on the inference thread with every
        TokenEvent and, last, with Finished; it must not block. What is kept of earlier texts is used again
        where they are of the same tenant by their `origin`.

        Raises ContextExceeded for a prompt that does not leave room for a token, InvalidRequest for messages
        or a constraint that cannot be used, GenerationFailed when the engine is closed, WorkerFailed when its
        thread has ended by a defect.
        """
        if not self.generates:
            raise InvalidRequest(f"model: {self.info.name} gives vectors, and no text", field="model")
        with self._model.reading():
            prepared = self._prompts.prepare(prompt, sampling)
            tokens = self._prompts.tokens(prepared)
            sampler = self._prompts.sampler(prepared, tokens)
        generation = Generation(self._loop.wake)
        sequence = Sequence(tokens, prepared.sampling, sampler, generation, on_event, prepared.form, origin)
        sequence.begins_added = isinstance(prompt, str) and self._model.adds_to(prompt)
        try:
            (self._scorer if sampling.prompt_logprobs else self._loop).submit(sequence)
        except (GenerationFailed, WorkerFailed):
            sampler.close()
            raise
        return generation

    def generate(self, prompt: Prompt, sampling: Sampling | None = None) -> Finished:
        """submit() and the wait for its outcome; raises the outcome's error if it has one."""
        finished = self.submit(prompt, sampling or Sampling()).wait()
        if finished.error is not None:
            raise finished.error
        return finished

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens a prompt has, however many the context holds."""
        with self._model.reading():
            return self._prompts.count(self._prompts.prepare(prompt, Sampling()))

    def tokenize(self, request: Tokenize) -> Tokenized:
        """Tokens of a text or of messages, the text of tokens, or what is known of the tokenizer."""
        with self._model.reading():
            return tokenized(self._model, self._chats, request, self.info.context_tokens)

    def embed(self, text: str, *, dimensions: int | None = None, truncate: bool = False) -> Embedded:
        """The vector of a text, computed on the caller's thread. Raises ContextExceeded, InvalidRequest,
        GenerationFailed."""
        with self._model.reading():
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
        return self._loop.stats()

    def kept(self, *, idle: bool = False) -> tuple[Origin, ...]:
        """The origins of the prompts whose cells are there, the latest first; with `idle` without those of
        texts in work."""
        return self._loop.kept(idle=idle)

    @property
    def failure(self) -> WorkerFailed | None:
        """The defect that has ended the inference thread, after which nothing is generated; None without
        one."""
        return self._loop.failure

    def step_s(self) -> float:
        """For how long the inference thread has been at its present step, in seconds; 0 while it waits."""
        return self._loop.step_s()

    def close(self, patience_s: float | None = None) -> bool:
        """Ends the inference thread after the step at hand and frees llama.cpp's memory. Generations that are
        not done finish with an error. Calling it again does nothing.

        False if the step at hand has taken longer than `patience_s`: what it works on is not freed then.
        """
        with self._closing:
            if self._closed:
                return not self._thread.is_alive()
            self._closed = True
        self._loop.stop()
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
            self._loop.run()
        except Exception:
            logger.exception("the inference thread of %s has ended by a defect", self.info.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
