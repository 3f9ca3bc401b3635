"""The loop of the engine's inference thread: steps of a whole model, one after another.

Every step evaluates one batch: the newest token of as many sequences that decode as give most tokens a
second, by the measured times of steps, and pieces of the prompts that are still being read. A sequence that
ends leaves its slot to the next in the queue at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from operator import attrgetter

import numpy as np

from schemas.errors import ChoirError, GenerationFailed, InvalidRequest, WorkerFailed
from schemas.requests.origin import Origin
from services.engine.batching.batch_size import BatchSizeTuner, neighbours
from services.engine.batching.interruption import Interruption
from services.engine.batching.scheduler import Part, Scheduler
from services.engine.batching.thread_count import ThreadTuner
from services.engine.decode.batch import Batch
from services.engine.decode.context import DECODED, INTERRUPTED, NO_KV_SPACE, Context, Logits
from services.engine.decode.logprobs import token_logprob
from services.engine.decode.sampler import GrammarSampler
from services.engine.model.info import EngineStats
from services.engine.model.model import Model
from services.engine.sequence.sequence import Sequence

PROMPT_TOKENS_BESIDE_DECODING = 128
GRAMMAR_PATIENCE_S = 0.005
"""How long a step waits for grammars. One that takes longer goes on without them: they are asked again after
it."""
HELD_UP_WAIT_S = 0.01
SPEED_WINDOW_STEPS = 64
NANOSECONDS_PER_MS = 1e6
LONGEST_REASON = 200


class InferenceLoop:
    """Runs the scheduler of a whole model. submit(), wake(), stop() and stats() may be called from any
    thread, everything else is the inference thread's."""

    def __init__(
        self,
        model: Model,
        context: Context,
        *,
        slots: int,
        context_tokens: int,
        batch_tokens: int,
        threads: ThreadTuner | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """`clock_ns` times steps: how many texts share one is decided by that, and how many `threads` it has;
        without them always the context's."""
        self._model = model
        self._context = context
        self._slots = slots
        self._kv_cells = slots * context_tokens
        self._scheduler: Scheduler[Sequence] = Scheduler(
            model,
            context,
            slots=slots,
            context_tokens=context_tokens,
            batch_tokens=batch_tokens,
            prompt_tokens_beside=PROMPT_TOKENS_BESIDE_DECODING,
            copy=context.copy if context.copies else None,
        )
        self._sizes = BatchSizeTuner()
        self._threads = threads
        self._clock_ns = clock_ns
        self._held_up: dict[Sequence, GrammarSampler] = {}
        self._batch = Batch(batch_tokens)
        self._submitted: deque[Sequence] = deque()
        self._changed = threading.Condition()
        self._interruption: Interruption[Sequence] = Interruption(context.interrupt, attrgetter("cancelled"))
        self._stopping = False
        self._speed: deque[tuple[int, int]] = deque(maxlen=SPEED_WINDOW_STEPS)
        self._step_began_s: float | None = None
        self.failure: WorkerFailed | None = None
        self._generated_tokens = 0

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; raises GenerationFailed after the end of the loop, WorkerFailed where a defect
        ended it."""
        with self._changed:
            if self.failure is not None:
                raise WorkerFailed(self.failure.message)
            if self._stopping:
                raise GenerationFailed("the engine is closed")
            self._submitted.append(sequence)
            self._changed.notify()

    def wake(self) -> None:
        """Makes the loop look for cancelled sequences. A step that reads the prompt of one ends now."""
        self._interruption.look()
        with self._changed:
            self._changed.notify()

    def stop(self) -> None:
        """Ends the loop after the step at hand; what is not done by then fails."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def stats(self) -> EngineStats:
        """The state now; counts of different things may be a step apart."""
        steps = list(self._speed)
        spent_ns = sum(duration_ns for _, duration_ns in steps)
        scheduler = self._scheduler
        return EngineStats(
            active=len(scheduler.running),
            waiting=len(self._submitted) + len(scheduler.waiting),
            slots=self._slots,
            kv_cells_used=scheduler.cells_used,
            kv_cells=self._kv_cells,
            decode_tokens_per_s=sum(tokens for tokens, _ in steps) * 1e9 / spent_ns if spent_ns else 0.0,
            prompt_tokens=scheduler.prompt_tokens,
            prefix_tokens_reused=scheduler.reused_tokens,
            generated_tokens=self._generated_tokens,
            threads=self._context.threads,
        )

    def kept(self, *, idle: bool) -> tuple[Origin, ...]:
        """As the scheduler's."""
        return self._scheduler.kept(idle=idle)

    def step_s(self) -> float:
        """For how long the loop has been at its present step, in seconds; 0 while it waits for work."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def run(self) -> None:
        """The loop, until stop(). However it ends, every sequence gets its outcome. A defect that ends it is
        raised, and stays as `failure`."""
        ended: ChoirError = GenerationFailed("the engine was closed before the generation was done")
        try:
            while self._wait_for_work():
                self._step_began_s = time.monotonic()
                self.turn()
                self._step_began_s = None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            self.failure = ended = WorkerFailed(f"the inference thread has ended by a defect: {reason}")
            raise
        finally:
            self._step_began_s = None
            self.end_all(ended)

    def turn(self) -> None:
        """A step, with all who have come and gone before it."""
        while self._submitted:
            self._scheduler.submit(self._submitted.popleft())
        for sequence in self._scheduler.drop_cancelled():
            self._held_up.pop(sequence, None)
        self._scheduler.admit()
        self._step()

    def end_all(self, error: ChoirError) -> None:
        """Takes nothing more, and ends all that is not done."""
        with self._changed:
            self._stopping = True
            left = (*self._scheduler.close(), *self._submitted)
            self._submitted.clear()
        self._held_up.clear()
        for sequence in left:
            sequence.finish("error", error=error)

    def _wait_for_work(self) -> bool:
        """Blocks while there is nothing to do; False when the loop has to end."""
        with self._changed:
            while not (self._stopping or self._submitted) and self._scheduler.is_idle:
                self._changed.wait()
            return not self._stopping

    # --- a step -------------------------------------------------------------------------

    def _step(self) -> None:
        started_ns = self._clock_ns()
        self._take_answers()
        parts = self._scheduler.compose(self._sharing)
        if not parts:
            self._wait_for_answers()
            return
        rows = self._fill_batch(parts)
        status = self._decode(parts)
        if status == INTERRUPTED:
            self._undo(parts)
            return
        if status != DECODED:
            self._fail(parts, status)
            return
        followed = [(part, row) for part, row in zip(parts, rows, strict=True) if part.wants_token]
        for part, row in followed:
            self._continue(part, row)
        if parts[-1].decodes:  # prompts come last
            self._sizes.note(len(parts), (self._clock_ns() - started_ns) / NANOSECONDS_PER_MS)
        self._take_answers(GRAMMAR_PATIENCE_S)
        for sampler in self._held_up.values():
            sampler.keep()
        self._generated_tokens += len(followed)
        if parts[-1].decodes:
            self._speed.append((len(parts), self._clock_ns() - started_ns))

    def _sharing(self, decoding: list[Sequence]) -> list[Sequence]:
        """Those of the texts that decode that share the next step: as many as give most tokens a second. A
        step that reads a prompt takes long anyway, so that all of them are in it."""
        if any(sequence.due and not sequence.decodes for sequence in self._scheduler.running):
            return decoding
        size = self._sizes.best(len(decoding))
        return decoding if size == len(decoding) else neighbours(decoding, size)

    def _decode(self, parts: list[Part[Sequence]]) -> int:
        """Evaluates the batch, unless nobody wants a prompt any more that it has a piece of."""
        prompts = [part.sequence for part in parts if not part.decodes]
        with self._interruption.step([part.sequence for part in parts], prompts):
            return self._evaluate(decodes=not prompts)

    def _evaluate(self, *, decodes: bool) -> int:
        """Evaluates the batch with the number of threads that is fastest. Steps that only decode tell which
        that is; one that reads a prompt follows those of its size, and has all where there are none."""
        if self._threads is None:
            return self._context.decode(self._batch)
        rows = self._batch.size
        threads = self._threads.next(rows) if decodes else self._threads.settled(rows)
        self._context.use_threads(threads)
        started_ns = self._clock_ns()
        status = self._context.decode(self._batch)
        if decodes and status == DECODED:
            self._threads.note(rows, threads, (self._clock_ns() - started_ns) / NANOSECONDS_PER_MS)
        return status

    def _undo(self, parts: list[Part[Sequence]]) -> None:
        """A step was interrupted: what it has of each sequence is evaluated again, in another one."""
        for part in parts:
            self._context.forget(part.sequence.slot, part.position)
            part.sequence.fed = part.position
        self._interruption.undone([part.sequence for part in parts])

    def _fill_batch(self, parts: list[Part[Sequence]]) -> list[int]:
        """The row of each part's last token. Neighbouring slots stand together: llama.cpp evaluates runs of
        them at once."""
        batch = self._batch
        batch.clear()
        return [
            batch.add_token(part.sequence.slot, part.position, part.tokens[0])
            if part.decodes
            else batch.add_chunk(
                part.sequence.slot, part.position, part.tokens, want_last=part.wants_token
            )
            for part in parts
        ]  # fmt: skip

    def _continue(self, part: Part[Sequence], row: int) -> None:
        """Chooses the token after a part; one that keeps to a grammar is asked for here, and taken later."""
        sequence = part.sequence
        if not part.decodes and np.isnan(self._context.logits(row)).any():
            self._end(sequence, GenerationFailed("the model computed NaN for this prompt"))
        elif isinstance(sequence.sampler, GrammarSampler):
            self._ask(sequence, sequence.sampler, self._context.logits(row))
        else:
            token = sequence.sampler.sample(self._context, row)
            self._follow(sequence, token, self._context.logits(row) if sequence.sampling.logprobs else None)

    def _ask(self, sequence: Sequence, sampler: GrammarSampler, logits: Logits) -> None:
        try:
            sampler.ask(logits)
        except InvalidRequest as error:
            self._end(sequence, error)
        else:
            self._held_up[sequence] = sampler

    def _take_answers(self, patience_s: float = 0.0) -> None:
        """Goes on with the sequences whose grammars have answered, or do so in time."""
        until_s = time.monotonic() + patience_s
        for sequence, sampler in list(self._held_up.items()):
            if sampler.answered(max(0.0, until_s - time.monotonic())):
                del self._held_up[sequence]
                self._take_answer(sequence, sampler)

    def _take_answer(self, sequence: Sequence, sampler: GrammarSampler) -> None:
        try:
            token = sampler.take()
        except (InvalidRequest, WorkerFailed) as error:
            self._end(sequence, error)
        else:
            self._follow(sequence, token, sampler.logits)

    def _wait_for_answers(self) -> None:
        """Nothing can be done but wait for grammars, and look for what is new now and then."""
        if self._held_up:
            wait([sampler.connection for sampler in self._held_up.values()], HELD_UP_WAIT_S)

    def _follow(self, sequence: Sequence, token: int | None, logits: Logits | None) -> None:
        """Takes a token; the logits that it comes from are needed where probabilities are asked for."""
        alternatives = sequence.sampling.logprobs
        logprob = None
        if alternatives and logits is not None:
            logprob = partial(token_logprob, self._model, logits, alternatives=alternatives)
        self._scheduler.take(sequence, token, logprob)

    def _fail(self, parts: list[Part[Sequence]], status: int) -> None:
        """Ends the sequences that a failed batch concerns: without room those that asked for much, the
        prompts, otherwise all of it, since nobody knows what is in their cells."""
        prompts = [part for part in parts if not part.decodes]
        concerned = prompts if status == NO_KV_SPACE and prompts else parts
        reason = "no room in the KV cache" if status == NO_KV_SPACE else f"llama_decode said {status}"
        for part in parts:
            part.sequence.fed = part.position
        for part in concerned:
            self._end(part.sequence, GenerationFailed(f"the batch could not be evaluated: {reason}"))

    def _end(self, sequence: Sequence, error: ChoirError) -> None:
        self._held_up.pop(sequence, None)
        self._scheduler.finish(sequence, "error", error)
