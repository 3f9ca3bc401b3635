"""Scoring: the log probabilities of a given text's tokens, and of those that are generated after it.

The logits of every token of a prompt are wanted for that, which takes much memory and time, so it happens
in a context and on a thread of its own: beside the texts that are generated, one at a time.
"""

from __future__ import annotations

import logging
import queue
import threading
from functools import partial

import numpy as np

from schemas.errors import ChoirError, GenerationFailed, WorkerFailed
from services.engine.decode.batch import Batch
from services.engine.decode.context import DECODED, Context, Logits
from services.engine.decode.logprobs import token_logprob
from services.engine.model.model import Model
from services.engine.sequence.generation import FirstToken
from services.engine.sequence.sequence import Sequence

LOGITS_BYTES = 64_000_000
"""So much memory the logits of one step may take."""

logger = logging.getLogger(__name__)


def rows_at_once(vocabulary: int, batch_tokens: int) -> int:
    """Of how many tokens the logits are computed in one step."""
    return max(1, min(batch_tokens, LOGITS_BYTES // (np.dtype(np.float32).itemsize * vocabulary)))


class Scorer:
    """Scores sequences in the order in which they come. It makes its context when the first one comes."""

    def __init__(
        self, model: Model, *, context_tokens: int, batch_tokens: int, threads: int, exact: bool
    ) -> None:
        self._model = model
        self._context_tokens = context_tokens
        self._rows = rows_at_once(model.vocab_size, batch_tokens)
        self._threads = threads
        self._exact = exact
        self._sequences: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence. Raises GenerationFailed after the end."""
        with self._lock:
            if self._stopping:
                raise GenerationFailed("the engine is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)
                self._thread.start()
            self._sequences.put(sequence)

    def stop(self, patience_s: float | None = None) -> bool:
        """Ends the thread after the step at hand; what is not done by then fails. False if it takes
        longer."""
        with self._lock:
            self._stopping = True
            self._sequences.put(None)
        if self._thread is not None:
            self._thread.join(patience_s)
            return not self._thread.is_alive()
        return True

    def _run(self) -> None:
        """However a score ends, its sequence gets an outcome."""
        context: Context | None = None
        while (sequence := self._sequences.get()) is not None:
            try:
                context = context or self._make_context()
                self._score(context, sequence)
            except ChoirError as error:
                sequence.finish("error", error=error)
            except Exception as error:
                logger.exception("a text could not be scored")
                reason = f"{type(error).__name__}: {error}"[:200]
                sequence.finish("error", error=WorkerFailed(f"the scorer has failed by a defect: {reason}"))
        if context is not None:
            context.close()

    def _make_context(self) -> Context:
        return Context(
            self._model,
            slots=1,
            context_tokens=self._context_tokens,
            batch_tokens=self._rows,
            threads=self._threads,
            exact=self._exact,
            logits_rows=self._rows,
        )

    def _score(self, context: Context, sequence: Sequence) -> None:
        context.forget(0)
        sequence.admit(0)
        logits = self._read_prompt(context, sequence)
        while logits is not None and self._goes_on(sequence):
            logits = self._choose_next(context, sequence, logits)

    def _goes_on(self, sequence: Sequence) -> bool:
        """Raises GenerationFailed at the end of the engine; a cancelled sequence has its outcome."""
        if self._stopping:
            raise GenerationFailed("the engine was closed before the score was done")
        if sequence.cancelled:
            sequence.finish("cancelled")
        return not sequence.cancelled

    def _read_prompt(self, context: Context, sequence: Sequence) -> Logits | None:
        """Tells the probability of every token of the prompt; the logits after the last one, None for one
        that is given up."""
        alternatives = sequence.sampling.logprobs
        first = int(sequence.prompt[0])
        sequence.prompt_logprobs.append(
            FirstToken(first, self._model.text_of([first]), sequence.begins_added)
        )
        batch = Batch(self._rows)
        for start in range(0, len(sequence.prompt), self._rows):
            if not self._goes_on(sequence):
                return None
            chunk = sequence.prompt[start : start + self._rows]
            batch.clear()
            batch.add_chunk(0, start, chunk, want_last=True)
            batch.want_all()
            self._decode(context, batch)
            followers = sequence.prompt[start + 1 : start + 1 + len(chunk)]
            for row, token in enumerate(followers):
                logits = context.logits(row)
                sequence.prompt_logprobs.append(token_logprob(self._model, logits, int(token), alternatives))
        return context.logits(batch.size - 1)

    def _decode(self, context: Context, batch: Batch) -> None:
        status = context.decode(batch)
        if status != DECODED:
            raise GenerationFailed(f"the batch could not be evaluated: llama_decode said {status}")
        if np.isnan(context.logits(batch.size - 1)).any():
            raise GenerationFailed("the model computed NaN for this prompt")

    def _choose_next(self, context: Context, sequence: Sequence, logits: Logits) -> Logits | None:
        """Generates one token; the logits after it, None where it was the last."""
        position = len(sequence.tokens)
        token = sequence.sampler.choose(logits)
        alternatives = sequence.sampling.logprobs
        logprob = partial(token_logprob, self._model, logits, alternatives=alternatives)
        ending = sequence.follow(self._model, token, self._context_tokens, logprob)
        if token is not None and ending is None:
            batch = Batch(1)
            batch.add_token(0, position, token)
            self._decode(context, batch)
            return context.logits(0)
        assert ending is not None
        if token is not None and ending.detail == "end_of_generation":
            sequence.note_end(logprob(token))
        sequence.end(ending)
        return None
