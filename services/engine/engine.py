"""The engine: a model, its context and the inference thread, behind a thread-safe interface."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import (
    ConfigurationError,
    ContextExceeded,
    GenerationFailed,
    InvalidRequest,
    ModelUnusable,
    WorkerFailed,
)
from schemas.sampling import Sampling
from services.engine.decode.context import Context
from services.engine.decode.sampler import new_sampler
from services.engine.model.chat_template import ChatTemplate
from services.engine.model.info import EngineStats, ModelInfo, describe
from services.engine.model.model import Model, Tokens
from services.engine.model.slicing import SLICE_PREFIX
from services.engine.scheduler import Scheduler
from services.engine.sequence.generation import Finished, Generation, OnEvent
from services.engine.sequence.prompt import Prompt
from services.engine.sequence.sequence import Sequence

CONTEXT_TOKENS_CAP = 4096
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
        scheduler: Scheduler,
        template: ChatTemplate,
        context_tokens: int,
    ) -> None:
        """Takes over what it is given and starts the thread; Engine.load() is the way to one."""
        self.info: ModelInfo = describe(model, context_tokens)
        self._model = model
        self._context = context
        self._scheduler = scheduler
        self._template = template
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
            template = _template_of(model)
            room = min(model.trained_context_tokens, context_tokens or CONTEXT_TOKENS_CAP)
            batch_tokens = max(min(batch_tokens, room), slots)
            context = Context(
                model,
                slots=slots,
                context_tokens=room,
                batch_tokens=batch_tokens,
                threads=threads or sensible_threads(model.weights_bytes),
                exact=gpu_layers == 0,
            )
            scheduler = Scheduler(model, context, slots=slots, context_tokens=room, batch_tokens=batch_tokens)
            return cls(model, context, scheduler, template, room)
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
        text = self._text_of(prompt)
        with self._vocabulary_lock:
            self._require_open()
            tokens = self._tokenize(text)
        sampler = new_sampler(self._model, sampling)
        generation = Generation(self._scheduler.wake)
        try:
            self._scheduler.submit(Sequence(tokens, sampling, sampler, generation, on_event))
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
        text = self._text_of(prompt)
        with self._vocabulary_lock:
            self._require_open()
            return len(self._model.tokenize(text))

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
        if self._thread.is_alive():
            return False
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

    def _text_of(self, prompt: Prompt) -> str:
        text = prompt if isinstance(prompt, str) else self._template.render(prompt)
        if not text:
            raise InvalidRequest("the prompt is empty", field="prompt")
        return text

    def _tokenize(self, text: str) -> Tokens:
        """The tokens of a prompt that fits; one that cannot fit is refused before it is tokenized."""
        room = self.info.context_tokens
        least = len(text) // self._model.longest_token_bytes
        tokens = self._model.tokenize(text) if least < room else None
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


def _template_of(model: Model) -> ChatTemplate:
    source = model.header.text("tokenizer.chat_template")
    try:
        return ChatTemplate(source, bos_text=model.bos_text, eos_text=model.eos_text)
    except ModelUnusable as error:
        raise ModelUnusable(f"the model file {model.path} is not usable: {error.message}") from error


def _check_numbers(slots: int, context_tokens: int | None, batch_tokens: int, threads: int | None) -> None:
    if not 1 <= slots <= MAX_SLOTS:
        raise ConfigurationError(f"slots is {slots}; 1 to {MAX_SLOTS} are possible", field="slots")
    numbers = {"context_tokens": context_tokens, "batch_tokens": batch_tokens, "threads": threads}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} is {value}; it is at least 1", field=name)
