"""A stage after the first: takes frames as they come, and evaluates in one step what has arrived."""

from __future__ import annotations

import time
from collections import Counter, deque
from itertools import groupby, islice

import numpy as np
from pydantic import ValidationError

from schemas.errors import ChoirError
from schemas.pipelines.activations import Flags, Frame
from schemas.pipelines.plan import PipelinePlan
from schemas.pipelines.stage_wire import Item, Sent, Start, Token
from schemas.pipelines.stages import SequenceStart
from services.engine.batching.batch_size import BatchSizeTuner
from services.engine.batching.interruption import Interruption
from services.engine.decode.activation_codec import decode_states
from services.engine.decode.hidden_states import Hidden
from services.engine.decode.stage_context import Interrupted
from services.shard_stage.pipeline.sequence_slots import SequenceSlot, SequenceSlots
from services.shard_stage.pipeline.step_executor import Outgoing, Piece, StepExecutor
from services.shard_stage.pipeline.step_stats import StepStats

BATCH_TOKENS = 128
"""The most tokens that a stage evaluates in a step."""
PROMPT_TOKENS_BESIDE_DECODING = 64
NANOSECONDS_PER_MS = 1e6
REMEMBERED_HANG_UPS = 64
"""The start of a sequence may come later than the word that nobody waits for it any more."""


class LaterStage:
    """The state of a stage after the first. What does not fit is dropped and counted in `drops`; `lost` says
    that a frame is missing, so that the stages have to agree anew on where they are."""

    def __init__(self, executor: StepExecutor, tuner: BatchSizeTuner, stats: StepStats) -> None:
        self._executor = executor
        self._tuner = tuner
        self._stats = stats
        self._slots = SequenceSlots(executor.plan.slots)
        self._out: deque[Outgoing] = deque()
        self._arrival = 0
        self._left: tuple[tuple[str, int], ...] = ()
        self._interruption: Interruption[tuple[str, int]] = Interruption(
            executor.context.context.interrupt, lambda wait: wait in self._left
        )
        self.drops: Counter[str] = Counter()
        self.lost = False

    @property
    def has_work(self) -> bool:
        """Whether step() has something to do."""
        return bool(self._out) or any(slot.pieces for slot in self._slots)

    @property
    def shares_steps(self) -> bool:
        """Whether there is more than one sequence."""
        return len(self._slots) > 1

    def cells(self) -> dict[int, int]:
        """How many tokens of each sequence are evaluated."""
        return self._slots.cells()

    def begin_epoch(self, plan: PipelinePlan) -> None:
        """From now on only this plan's frames count; what waits of the last epoch's is dropped."""
        self._executor.begin_epoch(plan)
        self._out.clear()
        self.lost = False
        self._slots.forget_ended()
        for slot in self._slots:
            slot.pieces.clear()

    @property
    def slots(self) -> SequenceSlots:
        """The sequences that this stage knows; for the replay of a log."""
        return self._slots

    def hang_up(self, request_id: str) -> None:
        """Nobody waits for this request any more: what has come of it is not evaluated, and a step that reads
        its prompt ends now. Any thread may say so, one at a time. Stage 0, which hears the same, tells of the
        end; if it did not hear, it waits in vain, and feeds the sequence again in a new epoch."""
        self._left = (*self._left, (request_id, self._executor.plan.epoch))[-REMEMBERED_HANG_UPS:]
        self._interruption.look()

    def take(self, item: Item) -> None:
        """Takes what has arrived."""
        match item:
            case Sent():
                self._stats.arrived(item.at_ns)
                self._arrival += 1
            case _ if item.epoch != self._executor.plan.epoch or item.pipeline != self._executor.plan.number:
                self.drops["epoch"] += 1
            case Start():
                self._take_start(item)
            case Frame():
                self._take_frame(item)
            case Token():
                self.drops["token"] += 1

    # --- what arrives -------------------------------------------------------------------

    def _take_start(self, start: Start) -> None:
        try:
            body = SequenceStart.model_validate_json(start.body)
        except ValidationError:
            self.drops["start"] += 1
            return
        epoch = self._executor.plan.epoch
        slot = self._slots.get(start.sequence)
        if slot is None:
            slot = self._slots.take(start.sequence, epoch, body.follows)
            if slot is None:
                self.drops["slot"] += 1
                self._out.append(self._executor.failure(start.sequence, start.position))
                return
            if not slot.cells:
                self._executor.context.forget(slot.index)
        slot.epoch, slot.request_id = epoch, body.request_id
        self._go_back(slot, start.position)
        slot.begin_attempt(0)
        try:
            self._executor.begin(start.sequence, body)
        except ChoirError:
            self._out.append(self._executor.failure(start.sequence, start.position))
        self._pass_on(start)

    def _go_back(self, slot: SequenceSlot, position: int) -> None:
        """Drops what was evaluated from `position` on; a gap before it shows in the next frame."""
        if position < slot.cells:
            kept = self._executor.context.forget(slot.index, keep=position)
            slot.cells = position if kept else 0
        slot.pieces.clear()

    def _take_frame(self, frame: Frame) -> None:
        slot = self._slots.get(frame.sequence)
        executor = self._executor
        if slot is None or slot.epoch != frame.epoch:
            self.drops["sequence"] += 1
        elif frame.stage != executor.stage:
            self.drops["stage"] += 1
        elif frame.count == 0:
            self._end(frame)
        elif slot.awaited in self._left:
            slot.pieces.clear()
        elif frame.width != executor.context.weights.width or frame.dtype is not executor.dtype:
            self.drops["shape"] += 1
        elif not self._is_of_attempt(slot, frame):
            return
        elif frame.position != slot.expected:
            self.drops["position"] += 1
            self.lost = self.lost or frame.position > slot.expected
        elif frame.position + frame.count > executor.plan.context_tokens:
            self.drops["context"] += 1
            self._out.append(executor.failure(frame.sequence, frame.position))
        else:
            wants = Flags.WANTS_TOKEN in frame.flags
            states = decode_states(frame)
            slot.arrival = self._arrival
            slot.pieces.append(
                Piece(slot.sequence, slot.index, frame.position, states, wants, frame.speculation)
            )

    def _is_of_attempt(self, slot: SequenceSlot, frame: Frame) -> bool:
        """Whether a frame counts among those of the present attempt to guess. The first of another attempt
        begins that, where the wrong guess was; without it something is missing."""
        attempt = 0 if frame.speculation is None else frame.speculation.attempt
        guessed = frame.speculation is not None and frame.speculation.token is not None
        if attempt == slot.attempt:
            return not (guessed and slot.refused)
        if attempt < slot.attempt or guessed or frame.position > slot.cells:
            self.drops["attempt"] += 1
            self.lost = self.lost or attempt > slot.attempt
            return False
        self._go_back(slot, frame.position)
        slot.begin_attempt(attempt)
        return True

    def _end(self, frame: Frame) -> None:
        self._slots.end(frame.sequence)
        self._executor.end(frame.sequence)
        self._pass_on(frame)

    def _pass_on(self, item: Start | Frame) -> None:
        """Starts and ends travel through every stage, in order with the frames."""
        if not self._executor.is_last:
            following = self._executor.stage + 1
            self._out.append(Outgoing(following, for_stage(item, following)))

    # --- what is done -------------------------------------------------------------------

    def step(self) -> list[Outgoing]:
        """Evaluates what has arrived, or as much of it as one step holds; what is to be sent."""
        out = list(self._out)
        self._out.clear()
        for slot in self._slots:
            if slot.awaited in self._left:
                slot.pieces.clear()
            if slot.pieces and self._executor.contradicts(slot.pieces[0]):
                slot.refuse()
        pieces, decoding = self._choose()
        if not pieces:
            return out
        known = [self._slots.get(piece.sequence) for piece in pieces]
        awaited = [slot.awaited for slot in known if slot is not None]
        started_ns = time.perf_counter_ns()
        try:
            with self._interruption.step(awaited, awaited[decoding:]):
                out += self._executor.run(pieces)
        except Interrupted:
            self._undo(pieces)
            self._interruption.undone(awaited)
            return out
        elapsed_ns = time.perf_counter_ns() - started_ns
        self._note(pieces, decoding, elapsed_ns)
        return out

    def _undo(self, pieces: list[Piece]) -> None:
        """A step was interrupted: its pieces are evaluated again, in another one."""
        for piece in pieces:
            self._executor.context.forget(piece.slot, keep=piece.position)
            slot = self._slots.get(piece.sequence)
            if slot is not None:
                slot.cells = piece.position
                slot.pieces.appendleft(piece)

    def _choose(self) -> tuple[list[Piece], int]:
        """The pieces of a step, and how many of them are single tokens of sequences that decode."""
        decoding = sorted((slot for slot in self._slots if slot.decodes), key=lambda slot: slot.arrival)
        group = self._tuner.merged([len(list(batch)) for _, batch in groupby(decoding, lambda s: s.arrival)])
        pieces = [consume(slot, 1) for slot in islice(decoding, group)]
        room = PROMPT_TOKENS_BESIDE_DECODING if decoding else BATCH_TOKENS
        room = min(room, BATCH_TOKENS - len(pieces))
        for slot in self._slots:
            if room > 0 and slot.pieces and not slot.decodes and slot not in decoding:
                pieces.append(consume(slot, room))
                room -= len(pieces[-1].inputs)
        return pieces, group

    def _note(self, pieces: list[Piece], decoding: int, elapsed_ns: int) -> None:
        rows = sum(len(piece.inputs) for piece in pieces)
        if decoding == len(pieces):
            self._tuner.note(decoding, elapsed_ns / NANOSECONDS_PER_MS)
        elif not decoding:
            self._tuner.note_prompt(rows, elapsed_ns / NANOSECONDS_PER_MS)
        requests = [slot.request_id for piece in pieces if (slot := self._slots.get(piece.sequence))]
        self._stats.stepped(len(pieces), rows, elapsed_ns, requests)


def for_stage(item: Start | Frame, stage: int) -> Start | Frame:
    """The same item on its way to another stage. Starts do not say which."""
    if isinstance(item, Start):
        return item
    return Frame(
        item.epoch,
        item.pipeline,
        stage,
        item.sequence,
        item.position,
        item.count,
        item.width,
        item.dtype,
        item.payload,
        item.flags,
    )


def consume(slot: SequenceSlot, room: int) -> Piece:
    """Up to `room` waiting tokens of a sequence, as one piece; from now on they count as evaluated."""
    taken: list[Hidden] = []
    wants, speculation = False, None
    position = slot.cells
    while slot.pieces and room > 0 and not wants:
        piece = slot.pieces.popleft()
        if len(piece.inputs) > room:
            rest = piece._replace(position=piece.position + room, inputs=piece.inputs[room:])
            slot.pieces.appendleft(rest)
            piece = piece._replace(inputs=piece.inputs[:room], wants_token=False)
        taken.append(np.asarray(piece.inputs, dtype=np.float32))
        room -= len(piece.inputs)
        wants, speculation = piece.wants_token, piece.speculation
    inputs = taken[0] if len(taken) == 1 else np.concatenate(taken)
    slot.cells += len(inputs)
    return Piece(slot.sequence, slot.index, position, inputs, wants, speculation)
