"""The slots of a stage: which one each live sequence has, and how much of it is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.shard_stage.pipeline.step_executor import Piece


@dataclass
class SequenceSlot:
    """A sequence's place. `cells` tokens are evaluated; `pieces` have arrived and wait. `arrival`
    numbers the message that the last of them came in. A slot of an earlier epoch than the stage's is stale:
    its sequence has not been heard of since. Of an `attempt` whose guesses are `refused` nothing more is
    taken."""

    sequence: int
    index: int
    epoch: int
    request_id: str = ""
    arrival: int = 0
    cells: int = 0
    attempt: int = 0
    refused: bool = False
    pieces: deque[Piece] = field(default_factory=deque)

    @property
    def awaited(self) -> tuple[str, int]:
        """The request that waits for this sequence, and the epoch in which that was said last."""
        return self.request_id, self.epoch

    @property
    def expected(self) -> int:
        """The position that has to come next."""
        return self.pieces[-1].position + len(self.pieces[-1].inputs) if self.pieces else self.cells

    @property
    def decodes(self) -> bool:
        """Whether what comes next is a single token whose successor is wanted."""
        return bool(self.pieces) and self.pieces[0].wants_token and len(self.pieces[0].inputs) == 1

    def begin_attempt(self, attempt: int) -> None:
        """Other guesses follow than those before."""
        self.attempt, self.refused = attempt, False

    def refuse(self) -> None:
        """The first piece that waits was guessed wrong, and so were those after it."""
        self.pieces.clear()
        self.refused = True


class SequenceSlots:
    """As many as the stage has slots. Low slots are taken first: llama.cpp evaluates neighbours together.
    What ended texts have in their cells stays until somebody else needs the slot."""

    def __init__(self, slots: int) -> None:
        self._count = slots
        self._slots: dict[int, SequenceSlot] = {}
        self._ended: dict[int, SequenceSlot] = {}

    def __iter__(self) -> Iterator[SequenceSlot]:
        return iter(self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, sequence: int) -> SequenceSlot | None:
        """The slot of a sequence, None if it has none."""
        return self._slots.get(sequence)

    def take(self, sequence: int, epoch: int, follows: int | None = None) -> SequenceSlot | None:
        """A slot for a new sequence: with all its cells that of the ended text which it `follows`, else an
        empty one, one of a stale sequence if no other is free. None if all are in use."""
        before = None if follows is None else self._ended.pop(follows, None)
        index = self._free_index(epoch) if before is None else before.index
        if index is None:
            return None
        cells = 0 if before is None else before.cells
        slot = self._slots[sequence] = SequenceSlot(sequence, index, epoch, cells=cells)
        return slot

    def _free_index(self, epoch: int) -> int | None:
        taken = {slot.index for slot in (*self._slots.values(), *self._ended.values())}
        free = set(range(self._count)) - taken
        if free:
            return min(free)
        if self._ended:
            return self._ended.pop(next(iter(self._ended))).index
        stale = [slot for slot in self._slots.values() if slot.epoch < epoch]
        if not stale:
            return None
        self.free(stale[0].sequence)
        return stale[0].index

    def end(self, sequence: int) -> None:
        """A sequence has ended: its cells stay."""
        slot = self.free(sequence)
        if slot is not None:
            slot.pieces.clear()
            self._ended[sequence] = slot

    def forget_ended(self) -> None:
        """Nobody follows a text that has ended by now."""
        self._ended.clear()

    def free(self, sequence: int) -> SequenceSlot | None:
        """Gives a slot back; the slot, None if there was none."""
        return self._slots.pop(sequence, None)

    def cells(self) -> dict[int, int]:
        """How many tokens of each sequence are evaluated."""
        return {slot.sequence: slot.cells for slot in self._slots.values()}
