"""Replays frames: rebuilds a stage's cells from what its predecessor was sent."""

from __future__ import annotations

from collections.abc import Collection

from schemas.errors import GenerationFailed
from schemas.pipelines.activations import Frame
from schemas.pipelines.stage_wire import Item, Start
from services.chassis.logs import get_logger
from services.engine.decode.activation_codec import decode_states
from services.shard_stage.pipeline.later_stage import BATCH_TOKENS, consume
from services.shard_stage.pipeline.sequence_slots import SequenceSlot, SequenceSlots
from services.shard_stage.pipeline.step_executor import Piece, StepExecutor

log = get_logger("shard_stage.replay")

REPLAYED = 0
"""The epoch of a replayed slot: older than any plan's, until stage 0 says that the sequence goes on."""


class Replay:
    """Takes a log of any epochs in its order and fills the cells of the sequences in `live` (of all that have
    not ended, if it is None). Frames that were sent twice count once; after a gap the rest is left out, and
    stage 0 feeds it again. So it does with sequences that llama.cpp cannot evaluate here. Guesses are held
    back until a frame of their attempt says that they were right."""

    def __init__(self, executor: StepExecutor, slots: SequenceSlots, live: Collection[int] | None) -> None:
        self._executor = executor
        self._slots = slots
        self._live = live
        self._waiting_rows = 0
        self._guesses: dict[int, list[Frame]] = {}

    def take(self, item: Item) -> None:
        """Takes the next item of the log."""
        if isinstance(item, Start):
            self._begin(item.sequence)
        elif isinstance(item, Frame) and item.count == 0:
            self._slots.free(item.sequence)
            self._guesses.pop(item.sequence, None)
        elif isinstance(item, Frame) and self._fits(item):
            for frame in self._certain(item):
                self._put(frame)

    def finish(self) -> None:
        """Fills in what still waits."""
        self._fill()

    def _begin(self, sequence: int) -> None:
        if self._live is not None and sequence not in self._live:
            return
        if self._slots.get(sequence) is None and (slot := self._slots.take(sequence, REPLAYED)):
            self._executor.context.forget(slot.index)

    def _certain(self, frame: Frame) -> list[Frame]:
        """The frames of a sequence whose tokens are certain, now that this one has come."""
        held = self._guesses.pop(frame.sequence, [])
        attempt, certain = _attempt(frame)
        of_attempt = [guess for guess in held if _attempt(guess)[0] == attempt] + [frame]
        left = [guess for guess in of_attempt if guess.position >= certain]
        if left:
            self._guesses[frame.sequence] = left
        return [guess for guess in of_attempt if guess.position < certain]

    def _put(self, frame: Frame) -> None:
        slot = self._slots.get(frame.sequence)
        if slot is None:
            return
        known = slot.expected - frame.position
        if not 0 <= known < frame.count:
            return
        states = decode_states(frame)[known:]
        slot.pieces.append(Piece(slot.sequence, slot.index, slot.expected, states, wants_token=False))
        self._waiting_rows += len(states)
        if self._waiting_rows >= BATCH_TOKENS:
            self._fill()

    def _fits(self, frame: Frame) -> bool:
        executor = self._executor
        same_shape = frame.width == executor.plan.width and frame.dtype is executor.dtype
        inside = frame.position + frame.count <= executor.plan.context_tokens
        plan = executor.plan
        same_cut = frame.pipeline == plan.number and frame.epoch >= (plan.since_epoch or plan.epoch)
        return same_cut and same_shape and inside

    def _fill(self) -> None:
        while waiting := [slot for slot in self._slots if slot.pieces]:
            pieces = _pieces(waiting)
            try:
                self._executor.fill(pieces)
            except GenerationFailed as error:
                log.warning("sequences cannot be replayed", sequences=len(pieces), why=error.message)
                for piece in pieces:
                    self._executor.context.forget(piece.slot)
                    self._slots.free(piece.sequence)
        self._waiting_rows = 0


def _attempt(frame: Frame) -> tuple[tuple[int, int], int]:
    """The attempt that a frame is of, with its epoch, and how many tokens were certain when it was sent."""
    if frame.speculation is None:
        return (frame.epoch, 0), frame.position + frame.count
    return (frame.epoch, frame.speculation.attempt), frame.speculation.certain


def _pieces(slots: list[SequenceSlot]) -> list[Piece]:
    """A step's worth of what waits, a piece of each sequence."""
    pieces, room = [], BATCH_TOKENS
    for slot in slots[:BATCH_TOKENS]:
        if room:
            pieces.append(consume(slot, room))
            room -= len(pieces[-1].inputs)
    return pieces
