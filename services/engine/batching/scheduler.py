"""Continuous batching: which texts have slots, and what of each is evaluated in the next step.

A whole model is a pipeline of one stage: the engine has this scheduler over its own context, and the first
stage of a pipeline has it over all stages. What a step is and where tokens come from is theirs; the queue,
the slots, the prompts that begin alike, the mixture of a step and the end of a text are here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from schemas.errors import ChoirError
from schemas.requests.origin import Origin
from services.engine.model.model import Model
from services.engine.sequence.generation import FinishReason, TokenLogprob
from services.engine.sequence.sequence import Sequence
from services.engine.sequence.slot import LEAST_SHARE, Slot, best_donor, best_slot, place_of_a_copy

S = TypeVar("S", bound=Sequence)

slot_of = attrgetter("slot")

LEAST_COPIED = 64
"""Fewer tokens are evaluated sooner than the cells of a slot are copied."""


class Cells(Protocol):
    """Where the tokens of all slots are evaluated."""

    def forget(self, slot: int, keep: int = 0) -> bool:
        """Drops a slot's cells from position `keep` on. False where they cannot be cut there; dropping all of
        a slot never fails."""


@dataclass(frozen=True, slots=True)
class Part(Generic[S]):
    """What a step has of one sequence: `tokens`, the first of them at `position`. `decodes`: it is the newest
    token of a text, and no part of a prompt. `wants_token`: no token is known that follows."""

    sequence: S
    position: int
    tokens: list[int]
    decodes: bool
    wants_token: bool


class Scheduler(Generic[S]):
    """Owns the queue and the slots. Only the inference thread uses it."""

    def __init__(
        self,
        model: Model,
        cells: Cells,
        *,
        slots: int,
        context_tokens: int,
        batch_tokens: int,
        prompt_tokens_beside: int,
        least_prefix: int = 1,
        copy: Callable[[int, int], None] | None = None,
    ) -> None:
        """A step has at most `batch_tokens`, and beside sequences that decode `prompt_tokens_beside` of
        prompts: a long piece of one would make them wait. A prompt that begins like what is in its slot has
        fewer tokens than `least_prefix` evaluated again. `copy(source, target)` copies the cells of a slot,
        where that is possible."""
        self._model = model
        self._cells = cells
        self._context_tokens = context_tokens
        self._batch_tokens = batch_tokens
        self._prompt_tokens_beside = prompt_tokens_beside
        self._least_prefix = least_prefix
        self._copy = copy
        self._slots: list[Slot[S]] = [Slot(index) for index in range(slots)]
        self._running: dict[int, S] = {}
        self._freed = 0
        self.waiting: deque[S] = deque()
        self.prompt_tokens = self.reused_tokens = 0

    @property
    def running(self) -> tuple[S, ...]:
        """The sequences that have slots. Those that wait for their turn come first."""
        return tuple(self._running.values())

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to schedule."""
        return not (self._running or self.waiting)

    @property
    def can_admit(self) -> bool:
        """Whether admit() has something to do."""
        return bool(self.waiting) and len(self._running) < len(self._slots)

    @property
    def cells_used(self) -> int:
        """How many cells hold a token, those of texts that have ended included."""
        return sum(len(slot.cells) for slot in self._slots) + sum(s.fed for s in self.running)

    def kept(self, *, idle: bool = False) -> tuple[Origin, ...]:
        """The origins of the prompts whose cells are there, the latest first; with `idle` of those in free
        slots. Any thread may ask; the answer may be a step old."""
        slots = sorted(self._slots, key=lambda slot: (slot.is_free, -slot.last_used))
        return tuple(slot.origin for slot in slots if (slot.cells if slot.is_free else not idle))

    # --- coming and going ---------------------------------------------------------------

    def submit(self, sequence: S) -> None:
        """Queues a sequence."""
        self.waiting.append(sequence)

    def admit(self) -> list[S]:
        """Gives free slots to sequences of the queue, in its order; those that have one now.

        What the cells of a slot share with a prompt is not evaluated again, but for the prompt's last token:
        its logits are what the text begins with.
        """
        admitted = []
        while self.waiting and (choice := self._slot_for(self.waiting[0])):
            sequence = self.waiting.popleft()
            if sequence.cancelled:
                sequence.finish("cancelled")
                continue
            slot, shared = choice if self._copy is None else self._copied(sequence, *choice, self._copy)
            self._occupy(sequence, slot, min(shared, len(sequence.prompt) - 1))
            self.prompt_tokens += len(sequence.prompt)
            self.reused_tokens += sequence.fed
            sequence.admit(sequence.fed)
            admitted.append(sequence)
        return admitted

    def resume(self, sequence: S) -> bool:
        """Gives a free slot, with nothing in it, to a sequence that was admitted elsewhere; False if there is
        none."""
        choice = self._slot_for(sequence)
        if choice is not None:
            self._occupy(sequence, choice[0], 0)
        return choice is not None

    def _copied(
        self, sequence: S, slot: Slot[S], shared: int, copy: Callable[[int, int], None]
    ) -> tuple[Slot[S], int]:
        """The slot for a sequence: where it would take the place of a text that could be gone on with, or one
        in work has more of its beginning, a copy in another slot."""
        source, common = slot, shared if shared * LEAST_SHARE >= len(sequence.prompt) else 0
        donor = best_donor(self._slots, sequence.prompt, sequence.origin.tenant)
        if donor is not None and donor[1] > common:
            source, common = donor
        place = place_of_a_copy(self._slots, source, common) if common >= LEAST_COPIED else None
        if place is None:
            return slot, shared
        copy(source.index, place.index)
        return place, common

    def _slot_for(self, sequence: S) -> tuple[Slot[S], int] | None:
        return best_slot(self._slots, sequence.prompt, sequence.origin.tenant)

    def _occupy(self, sequence: S, slot: Slot[S], shared: int) -> None:
        keep = shared if shared >= self._least_prefix else 0
        if not self._cells.forget(slot.index, keep):
            self._cells.forget(slot.index)
            keep = 0
        slot.cells, slot.sequence, slot.origin = [], sequence, sequence.origin
        sequence.slot, sequence.fed = slot.index, keep
        self._running[slot.index] = sequence

    def drop_cancelled(self) -> list[S]:
        """Ends the sequences in which nobody is interested any more; those that had slots."""
        dropped = [sequence for sequence in self._running.values() if sequence.cancelled]
        for sequence in dropped:
            self.finish(sequence, "cancelled")
        for sequence in [sequence for sequence in self.waiting if sequence.cancelled]:
            self.waiting.remove(sequence)
            sequence.finish("cancelled")
        return dropped

    def close(self) -> tuple[S, ...]:
        """Ends the scheduling; the sequences that are not done, with no outcome yet."""
        left = (*self.running, *self.waiting)
        for sequence in self.running:
            self.release(sequence)
        self.waiting.clear()
        return left

    # --- steps --------------------------------------------------------------------------

    def compose(self, choose: Callable[[list[S]], Iterable[S]] | None = None) -> list[Part[S]]:
        """The parts of the next step, which count as fed from now on: the sequences that decode, one token
        each, by their slots; then prompts in the order of their arrival. `choose` may take some of those that
        decode; the others come before these in the next step."""
        decoding = [sequence for sequence in self._running.values() if sequence.decodes]
        chosen = decoding if choose is None or not decoding else list(choose(decoding))
        parts = [self._part(sequence, 1, decodes=True) for sequence in sorted(chosen, key=slot_of)]
        room = self._batch_tokens - len(parts)
        if decoding:
            room = min(room, self._prompt_tokens_beside)
        for sequence in self._running.values():
            if room > 0 and sequence.due and not sequence.decodes:
                parts.append(self._part(sequence, min(room, sequence.ready), decodes=False))
                room -= len(parts[-1].tokens)
        if len(chosen) < len(decoding):
            for sequence in chosen:
                self._running[sequence.slot] = self._running.pop(sequence.slot)
        return parts

    def _part(self, sequence: S, count: int, *, decodes: bool) -> Part[S]:
        position = sequence.fed
        tokens = sequence.tokens[position : position + count]
        sequence.fed = position + count
        return Part(sequence, position, tokens, decodes, not sequence.due)

    def take(
        self, sequence: S, token: int | None, logprob: Callable[[int], TokenLogprob] | None = None
    ) -> bool:
        """Takes the token that follows in a text, None where a grammar lets none follow; whether the text
        goes on. If not, it has its outcome, and the slot is free."""
        ending = sequence.follow(self._model, token, self._context_tokens, logprob)
        if ending is None:
            return True
        self.release(sequence)
        sequence.end(ending)
        return False

    def finish(self, sequence: S, reason: FinishReason, error: ChoirError | None = None) -> None:
        """Frees a sequence's slot and ends it. After an error nobody knows what is in its cells."""
        self.release(sequence, keep=error is None)
        sequence.finish(reason, error=error)

    def release(self, sequence: S, *, keep: bool = True) -> None:
        """Frees a sequence's slot. With `keep` its cells stay, for the next prompt that begins alike."""
        slot = self._slots[sequence.slot]
        if not keep:
            self._cells.forget(slot.index)
        self._freed += 1
        slot.cells = sequence.tokens[: sequence.kept] if keep else []
        slot.sequence, slot.last_used = None, self._freed
        del self._running[slot.index]

    def forget_ended(self) -> None:
        """Takes nothing more from the cells of texts that have ended."""
        for slot in self._slots:
            slot.cells = []
