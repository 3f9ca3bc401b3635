"""Continuous batching: the loop of the inference thread.

Every step evaluates one batch: the newest token of each sequence that is speaking, and pieces of the prompts
that are still being read. A sequence that ends leaves its slot to the next in the queue at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait

import numpy as np

from schemas.errors import ChoirError, GenerationFailed, InvalidRequest, WorkerFailed
from services.engine.decode.batch import Batch
from services.engine.decode.context import DECODED, NO_KV_SPACE, Context, Logits
from services.engine.decode.logprobs import token_logprob
from services.engine.decode.sampler import GrammarSampler
from services.engine.model.info import EngineStats
from services.engine.model.model import Model
from services.engine.sequence.sequence import Sequence
from services.engine.sequence.slot import Slot, best_slot

# A step with a long piece of prompt makes those who speak wait: a piece beside them is at most this long.
PROMPT_TOKENS_BESIDE_SPEAKERS = 128
GRAMMAR_PATIENCE_S = 0.005
"""How long a step waits for grammars. One that takes longer goes on without them: they are asked again after
it."""
HELD_UP_WAIT_S = 0.01
SPEED_WINDOW_STEPS = 64
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Part:
    """What one slot has in the batch: `tokens` new cells, the last of them in row `row`."""

    slot: Slot
    tokens: list[int]
    row: int
    ends_prompt: bool
    is_prompt: bool


class Scheduler:
    """Owns the slots and the queue. submit(), wake(), stop() and stats() may be called from any thread,
    everything else is the inference thread's."""

    def __init__(
        self, model: Model, context: Context, *, slots: int, context_tokens: int, batch_tokens: int
    ) -> None:
        self._model = model
        self._context = context
        self._context_tokens = context_tokens
        self._slots = [Slot(index) for index in range(slots)]
        self._active: list[Slot] = []
        self._held_up: dict[int, tuple[Slot, GrammarSampler]] = {}
        self._batch = Batch(batch_tokens)
        self._waiting: deque[Sequence] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._speed: deque[tuple[int, int]] = deque(maxlen=SPEED_WINDOW_STEPS)
        self._freed = 0
        self._step_began_s: float | None = None
        self.failure: WorkerFailed | None = None
        self._prompt_tokens = self._reused_tokens = self._generated_tokens = 0

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; raises GenerationFailed after the end of the loop, WorkerFailed where a defect
        ended it."""
        with self._changed:
            if self.failure is not None:
                raise WorkerFailed(self.failure.message)
            if self._stopping:
                raise GenerationFailed("the engine is closed")
            self._waiting.append(sequence)
            self._changed.notify()

    def wake(self) -> None:
        """Makes the loop look for cancelled sequences."""
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
        return EngineStats(
            active=len(self._active),
            waiting=len(self._waiting),
            slots=len(self._slots),
            kv_cells_used=sum(len(slot.cells) for slot in self._slots),
            kv_cells=len(self._slots) * self._context_tokens,
            decode_tokens_per_s=sum(tokens for tokens, _ in steps) * 1e9 / spent_ns if spent_ns else 0.0,
            prompt_tokens=self._prompt_tokens,
            prefix_tokens_reused=self._reused_tokens,
            generated_tokens=self._generated_tokens,
        )

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
                self._drop_cancelled()
                self._admit()
                self._step()
                self._step_began_s = None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            self.failure = ended = WorkerFailed(f"the inference thread has ended by a defect: {reason}")
            raise
        finally:
            self._step_began_s = None
            self._end_all(ended)

    def _wait_for_work(self) -> bool:
        """Blocks while there is nothing to do; False when the loop has to end."""
        with self._changed:
            while not (self._stopping or self._active or self._waiting):
                self._changed.wait()
            return not self._stopping

    def _drop_cancelled(self) -> None:
        for slot in [slot for slot in self._active if slot.sequence and slot.sequence.cancelled]:
            self._release(slot).finish("cancelled")
        with self._changed:
            cancelled = [sequence for sequence in self._waiting if sequence.cancelled]
            for sequence in cancelled:
                self._waiting.remove(sequence)
        for sequence in cancelled:
            sequence.finish("cancelled")

    def _admit(self) -> None:
        """Moves sequences from the queue into free slots."""
        while self._waiting and (choice := best_slot(self._slots, self._waiting[0].prompt)):
            slot, shared = choice
            with self._changed:
                sequence = self._waiting.popleft()
            self._move_in(slot, sequence, shared)

    def _move_in(self, slot: Slot, sequence: Sequence, shared: int) -> None:
        """Gives a slot to a sequence, with the `shared` cells that are right already. The prompt's last token
        is always evaluated again: its logits are what the text begins with."""
        keep = min(shared, len(sequence.prompt) - 1)
        if not self._context.forget(slot.index, keep):
            self._context.forget(slot.index)
            keep = 0
        del slot.cells[keep:]
        slot.sequence = sequence
        self._active.append(slot)
        self._prompt_tokens += len(sequence.prompt)
        self._reused_tokens += keep
        sequence.admit(keep)

    def _step(self) -> None:
        started_ns = time.perf_counter_ns()
        self._take_answers()
        parts = self._fill_batch()
        if not parts:
            self._wait_for_answers()
            return
        status = self._context.decode(self._batch)
        if status != DECODED:
            self._fail(parts, status)
            return
        for part in parts:
            part.slot.cells.extend(part.tokens)
        spoken = [part for part in parts if part.ends_prompt or not part.is_prompt]
        for part in spoken:
            self._continue(part)
        self._take_answers(GRAMMAR_PATIENCE_S)
        for _, sampler in self._held_up.values():
            sampler.keep()
        self._generated_tokens += len(spoken)
        if len(spoken) == len(parts) and not any(part.is_prompt for part in parts):
            self._speed.append((len(spoken), time.perf_counter_ns() - started_ns))

    def _fill_batch(self) -> list[Part]:
        """Slots that decode come first, one token each, in their order, since llama.cpp evaluates runs of
        neighbouring slots together; then prompts in the order of their arrival."""
        self._batch.clear()
        able = [slot for slot in self._active if slot.index not in self._held_up]
        speaking = [slot for slot in able if slot.sequence and slot.sequence.next_token is not None]
        parts = [self._add_token(slot) for slot in sorted(speaking, key=lambda slot: slot.index)]
        room = min(self._batch.room, PROMPT_TOKENS_BESIDE_SPEAKERS) if speaking else self._batch.room
        for slot in able:
            if room > 0 and slot.sequence and slot.sequence.next_token is None:
                part = self._add_prompt(slot, slot.sequence, room)
                room -= len(part.tokens)
                parts.append(part)
        return parts

    def _add_token(self, slot: Slot) -> Part:
        assert slot.sequence is not None and slot.sequence.next_token is not None
        token = slot.sequence.next_token
        row = self._batch.add_token(slot.index, len(slot.cells), token)
        return Part(slot, [token], row, ends_prompt=False, is_prompt=False)

    def _add_prompt(self, slot: Slot, sequence: Sequence, room: int) -> Part:
        done = len(slot.cells)
        chunk = sequence.prompt[done : done + room]
        ends_prompt = done + len(chunk) == len(sequence.prompt)
        row = self._batch.add_chunk(slot.index, done, chunk, want_last=ends_prompt)
        return Part(slot, chunk.tolist(), row, ends_prompt, is_prompt=True)

    def _continue(self, part: Part) -> None:
        """Chooses the token after a part; one that keeps to a grammar is asked for here, and taken later."""
        slot, sequence = part.slot, part.slot.sequence
        assert sequence is not None
        logits = self._context.logits(part.row)
        if part.ends_prompt and np.isnan(logits).any():
            self._release(slot).finish(
                "error", error=GenerationFailed("the model computed NaN for this prompt")
            )
        elif isinstance(sequence.sampler, GrammarSampler):
            self._ask(slot, sequence.sampler, logits)
        else:
            self._follow(slot, sequence, sequence.sampler.sample(self._context, part.row), logits)

    def _ask(self, slot: Slot, sampler: GrammarSampler, logits: Logits) -> None:
        try:
            sampler.ask(logits)
        except InvalidRequest as error:
            self._release(slot).finish("error", error=error)
        else:
            self._held_up[slot.index] = slot, sampler

    def _take_answers(self, patience_s: float = 0.0) -> None:
        """Goes on with the sequences whose grammars have answered, or do so in time."""
        until_s = time.monotonic() + patience_s
        for slot, sampler in list(self._held_up.values()):
            if sampler.answered(max(0.0, until_s - time.monotonic())):
                del self._held_up[slot.index]
                self._take_answer(slot, sampler)

    def _take_answer(self, slot: Slot, sampler: GrammarSampler) -> None:
        assert slot.sequence is not None
        try:
            token = sampler.take()
        except (InvalidRequest, WorkerFailed) as error:
            self._release(slot).finish("error", error=error)
        else:
            self._follow(slot, slot.sequence, token, sampler.logits)

    def _wait_for_answers(self) -> None:
        """Nothing can be done but wait for grammars, and look for what is new now and then."""
        if self._held_up:
            wait([sampler.connection for _, sampler in self._held_up.values()], HELD_UP_WAIT_S)

    def _follow(self, slot: Slot, sequence: Sequence, token: int | None, logits: Logits) -> None:
        """Goes on with the next token, and ends the sequence if it was the last."""
        sequence.note_first_token()
        if token is None:
            self._release(slot).finish("stop", detail="grammar_end")
        elif self._model.ends_generation(token):
            self._release(slot).finish("stop", detail="end_of_generation")
        else:
            self._say(slot, sequence, token, logits)

    def _say(self, slot: Slot, sequence: Sequence, token: int, logits: Logits) -> None:
        alternatives = sequence.sampling.logprobs
        logprob = token_logprob(self._model, logits, token, alternatives) if alternatives else None
        stop = sequence.say(token, self._model.piece(token, spoken=sequence.reads), logprob)
        if stop is not None:
            self._release(slot).finish("stop", detail="stop_string", stop_string=stop)
        elif sequence.generated >= sequence.sampling.max_tokens:
            self._release(slot).finish("length", detail="max_tokens")
        elif len(slot.cells) >= self._context_tokens:
            self._release(slot).finish("length", detail="context_full")

    def _fail(self, parts: list[Part], status: int) -> None:
        """Ends the sequences that a failed batch concerns: without room those that asked for much, the
        prompts, otherwise all of it, since nobody knows what is in their cells."""
        prompts = [part for part in parts if part.is_prompt]
        concerned = prompts if status == NO_KV_SPACE and prompts else parts
        reason = "no room in the KV cache" if status == NO_KV_SPACE else f"llama_decode said {status}"
        for part in concerned:
            sequence = self._release(part.slot)
            self._forget(part.slot)
            sequence.finish("error", error=GenerationFailed(f"the batch could not be evaluated: {reason}"))

    def _forget(self, slot: Slot) -> None:
        self._context.forget(slot.index)
        slot.cells.clear()

    def _release(self, slot: Slot) -> Sequence:
        """Frees a slot, cells kept; the sequence that was in it."""
        sequence = slot.sequence
        assert sequence is not None
        self._freed += 1
        self._held_up.pop(slot.index, None)
        slot.sequence, slot.last_used = None, self._freed
        self._active.remove(slot)
        return sequence

    def _end_all(self, error: ChoirError) -> None:
        with self._changed:
            self._stopping = True
            left = [self._release(slot) for slot in list(self._active)] + list(self._waiting)
            self._waiting.clear()
        for sequence in left:
            sequence.finish("error", error=error)
