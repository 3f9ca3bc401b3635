"""The slots of a stage: which one each live sequence has, and how much of it is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.shard_stage.pipeline.step_executor import Piece


@dataclass
class SequenceSlot:
    """A sequence's place. `cells` tokens are evaluated; `pieces` have arrived and wait. `arrival`
    numbers the message that the last of them came in. A seat of an earlier epoch than the stage's is stale:
    its sequence has not been heard of since."""

    sequence: int
    slot: int
    epoch: int
    request_id: str = ""
    arrival: int = 0
    cells: int = 0
    pieces: deque[Piece] = field(default_factory=deque)

    @property
    def expected(self) -> int:
        """The position that has to come next."""
        return self.pieces[-1].position + len(self.pieces[-1].inputs) if self.pieces else self.cells

    @property
    def speaks(self) -> bool:
        """Whether what comes next is a single token whose successor is wanted."""
        return bool(self.pieces) and self.pieces[0].wants_token and len(self.pieces[0].inputs) == 1


class SequenceSlots:
    """As many as the stage has slots. Low slots are taken first: llama.cpp evaluates neighbours together."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._seats: dict[int, SequenceSlot] = {}

    def __iter__(self) -> Iterator[SequenceSlot]:
        return iter(self._seats.values())

    def __len__(self) -> int:
        return len(self._seats)

    def get(self, sequence: int) -> SequenceSlot | None:
        """The seat of a sequence, None if it has none."""
        return self._seats.get(sequence)

    def take(self, sequence: int, epoch: int) -> SequenceSlot | None:
        """A seat for a new sequence, one of a stale sequence if no other is free; None if all are in use."""
        free = set(range(self._slots)) - {seat.slot for seat in self._seats.values()}
        if not free:
            stale = [seat for seat in self._seats.values() if seat.epoch < epoch]
            if not stale:
                return None
            self.free(stale[0].sequence)
            free = {stale[0].slot}
        seat = self._seats[sequence] = SequenceSlot(sequence, min(free), epoch)
        return seat

    def free(self, sequence: int) -> SequenceSlot | None:
        """Gives a seat back; the seat, None if there was none."""
        return self._seats.pop(sequence, None)

    def cells(self) -> dict[int, int]:
        """How many tokens of each sequence are evaluated."""
        return {seat.sequence: seat.cells for seat in self._seats.values()}
