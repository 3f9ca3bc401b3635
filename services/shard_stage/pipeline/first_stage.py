"""The first stage: keeps the sequences, feeds their tokens into the pipeline, and takes what comes back."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from schemas.activations import MAX_FRAME_BYTES, Flags, Frame
from schemas.errors import GenerationFailed
from schemas.pipelines import PipelinePlan
from schemas.stage_wire import Item, Outcome, Sent, Start, Token
from services.chassis.logs import get_logger
from services.engine.model.cuts import ARCHITECTURES
from services.engine.model.model import Model
from services.engine.sequence.generation import FinishReason
from services.shard_stage.intake.speed import Speed
from services.shard_stage.pipeline.batch_size import BatchSizeTuner, group_size
from services.shard_stage.pipeline.later_stage import (
    BATCH_TOKENS,
    NANOSECONDS_PER_MS,
    PROMPT_TOKENS_BESIDE_SPEAKERS,
)
from services.shard_stage.pipeline.prefill_chunks import Costs, chunk_tokens
from services.shard_stage.pipeline.sequence_state import SequenceState, resume_position
from services.shard_stage.pipeline.step_executor import Outgoing, Piece, StepExecutor
from services.shard_stage.pipeline.step_stats import StepStats

MOST_RESUMPTIONS = 4
FAIR_CHANCE_S = 1.0
"""An epoch that was over sooner says nothing of the sequences in it: several stages that have lost their
connection begin one each."""
JOURNAL = 0
"""What is published to stage 0 is, besides, what a new stage 0 reads: starts, tokens, ends."""

log = get_logger("shard_stage.first_stage")


class FirstStage:
    """Stage 0 of a pipeline; where that is all of it, the last stage too. Closed until all stages of an epoch
    are ready. What does not fit is dropped and counted in `drops`."""

    def __init__(
        self,
        executor: StepExecutor,
        model: Model,
        tuner: BatchSizeTuner,
        stats: StepStats,
        hop_ms: float,
        clock: Callable[[], float] = time.monotonic,
        carried: int = MAX_FRAME_BYTES,
    ) -> None:
        """`carried` is the most bytes of a message."""
        self._executor = executor
        self._carried = carried
        self._model = model
        self._tuner = tuner
        self._stats = stats
        self._hop_ms = hop_ms
        self._waiting: deque[SequenceState] = deque()
        self._seated: dict[int, SequenceState] = {}
        self._out: deque[Outgoing] = deque()
        self._open = False
        self._clock = clock
        self._opened_s = -FAIR_CHANCE_S
        self._speed = Speed()
        self.drops: Counter[str] = Counter()
        self.lost = False

    @property
    def live(self) -> tuple[SequenceState, ...]:
        """The sequences that have begun."""
        return tuple(self._seated.values())

    @property
    def shares_steps(self) -> bool:
        """Whether there is more than one sequence."""
        return len(self._seated) + len(self._waiting) > 1

    @property
    def tokens_per_s(self) -> float | None:
        """The rate at which the last tokens came while there was work; None before there are enough."""
        return self._speed.per_s

    @property
    def waits_for_tokens(self) -> bool:
        """Whether some sequence has nothing more to send and waits for its next token."""
        return any(not flow.due for flow in self.live)

    @property
    def has_work(self) -> bool:
        """Whether step() has something to do."""
        if not self._open:
            return False
        room = bool(self._waiting) and len(self._seated) < self._executor.plan.slots
        return bool(self._out) or room or any(flow.due for flow in self._seated.values())

    def cells(self) -> dict[int, int]:
        """How many tokens of each sequence are evaluated here."""
        return {flow.id: flow.fed for flow in self._seated.values()}

    # --- what comes in ------------------------------------------------------------------

    def submit(self, flow: SequenceState) -> None:
        """A new sequence; it begins when there is room for it."""
        self._waiting.append(flow)

    def adopt(self, flow: SequenceState) -> None:
        """A sequence of a stage 0 that is gone: its tokens are evaluated here, as far as they are known. One
        that cannot be evaluated ends alone; one that nobody waits for any more has ended."""
        if flow.text.cancelled:
            flow.text.finish("cancelled")
            return
        flow.slot = self._free_slot()
        self._executor.context.forget(flow.slot)
        try:
            while flow.due > 1:
                piece = self._piece(flow, min(flow.due - 1, BATCH_TOKENS))
                self._executor.fill([piece])
        except GenerationFailed as error:
            self._executor.context.forget(flow.slot)
            flow.text.finish("error", error=error)
        else:
            self._seated[flow.id] = flow

    def cancel(self, number: int) -> None:
        """Ends a sequence, if it still runs."""
        flow = self._seated.get(number)
        if flow is not None:
            self._finish(flow, "cancelled")
        for waiting in [flow for flow in self._waiting if flow.id == number]:
            self._waiting.remove(waiting)
            waiting.text.finish("cancelled")

    def begin_epoch(self, plan: PipelinePlan) -> None:
        """Closed until open() says where all stages are."""
        self._executor.begin_epoch(plan)
        self._speed.pause()
        self._open = self.lost = False
        self._out.clear()

    def open(self, cells_of_stages: Sequence[Mapping[int, int]]) -> None:
        """All stages of this epoch are ready, with so many tokens of each sequence."""
        self._open = True
        now_s = self._clock()
        had_a_chance, self._opened_s = now_s - self._opened_s >= FAIR_CHANCE_S, now_s
        windowed = ARCHITECTURES[self._executor.plan.architecture].window_period > 1
        for flow in list(self._seated.values()):
            held = [flow.fed, *(cells.get(flow.id, 0) for cells in cells_of_stages)]
            position = resume_position(len(flow.tokens), held, windowed=windowed)
            if not self._executor.context.forget(flow.slot, keep=position):
                position = 0
                self._executor.context.forget(flow.slot)
            if had_a_chance:
                flow.note_resumption()
            flow.resume_at(position, self._chunk(flow, len(flow.tokens) - position))
            if flow.resumed > MOST_RESUMPTIONS:
                reason = f"the pipeline was lost {flow.resumed} times at the same token of this text"
                self._finish(flow, "error", GenerationFailed(reason))

    def close(self) -> tuple[SequenceState, ...]:
        """Ends without a word to the other stages; the sequences that were not done."""
        left = (*self._seated.values(), *self._waiting)
        self._seated.clear()
        self._waiting.clear()
        self._open = False
        return left

    def take(self, item: Item) -> None:
        """Takes what has arrived."""
        if isinstance(item, Sent):
            self._stats.arrived(item.at_ns)
        elif not isinstance(item, Token):
            self.drops["item"] += 1
        elif item.epoch != self._executor.plan.epoch or item.pipeline != self._executor.plan.number:
            self.drops["epoch"] += 1
        else:
            self._take_token(item)

    def _take_token(self, token: Token) -> None:
        flow = self._seated.get(token.sequence)
        self._speed.token(self._clock())
        if flow is None:
            self.drops["sequence"] += 1
        elif token.outcome is Outcome.FAILED:
            self._finish(flow, "error", GenerationFailed("a stage of the pipeline could not evaluate this"))
        elif token.outcome is Outcome.NOT_FINITE:
            self._finish(flow, "error", GenerationFailed("the model computed NaN for this prompt"))
        elif token.position != len(flow.tokens) or flow.due:
            self.drops["position"] += 1
        elif token.outcome is Outcome.GRAMMAR_END:
            flow.text.note_first_token()
            flow.text.finish("stop", detail="grammar_end")
            self._leave(flow)
        elif flow.say(self._model, token, self._executor.plan.context_tokens) == "finished":
            self._leave(flow)
        else:
            flow.send_at = len(flow.tokens)

    # --- what is done -------------------------------------------------------------------

    def step(self) -> list[Outgoing]:
        """Evaluates the next micro-batch; what is to be sent."""
        self._admit()
        out = list(self._out)
        self._out.clear()
        pieces, flows, speakers = self._choose()
        if not pieces:
            return out
        out += [outgoing for flow in flows for outgoing in self._announced(flow)]
        started_ns = time.perf_counter_ns()
        made = self._executor.run(pieces)
        elapsed_ns = time.perf_counter_ns() - started_ns
        out += self._sorted_out(made)
        self._note(pieces, flows, speakers, elapsed_ns)
        return out

    def _admit(self) -> None:
        while self._waiting and len(self._seated) < self._executor.plan.slots:
            flow = self._waiting.popleft()
            if flow.text.cancelled:
                flow.text.finish("cancelled")
                continue
            flow.slot = self._free_slot()
            self._executor.context.forget(flow.slot)
            flow.text.admit(0)
            flow.resume_at(0, self._chunk(flow, len(flow.tokens)))
            self._seated[flow.id] = flow

    def _choose(self) -> tuple[list[Piece], list[SequenceState], int]:
        """A group of sequences that speak, then prompts in the order of their arrival."""
        speaking = [flow for flow in self._seated.values() if flow.speaks]
        active = sum(flow.fed >= flow.prompt_tokens for flow in self._seated.values())
        group = group_size(self._tuner, max(active, len(speaking), 1), len(self._executor.plan.stages))
        flows = _neighbours(speaking, group)
        pieces, spoken = [self._piece(flow, 1) for flow in flows], tuple(flows)
        room = PROMPT_TOKENS_BESIDE_SPEAKERS if speaking else BATCH_TOKENS
        room = min(room, BATCH_TOKENS - len(pieces))
        for flow in self._seated.values():
            if room > 0 and flow.due and flow not in speaking:
                pieces.append(self._piece(flow, min(room, flow.due, flow.send_at - flow.fed)))
                flows.append(flow)
                room -= len(pieces[-1].inputs)
        for flow in spoken:  # those that have spoken go to the end, so that all have their turn
            self._seated[flow.id] = self._seated.pop(flow.id)
        return pieces, flows, len(spoken)

    def _piece(self, flow: SequenceState, count: int) -> Piece:
        inputs = flow.next_tokens(count)
        position, flow.fed = flow.fed, flow.fed + count
        return Piece(flow.id, flow.slot, position, inputs, wants_token=not flow.due)

    def _announced(self, flow: SequenceState) -> list[Outgoing]:
        """A sequence's start, before its first frame in an epoch: for the next stage and for the journal."""
        if flow.started:
            return []
        flow.started = True
        self._executor.begin(flow.id, flow.start(journal=False))
        journal = self._start(flow, JOURNAL)
        out = [journal] if len(journal.item.to_bytes()) <= self._carried else []
        if not out:
            request = flow.command.request_id
            log.warning("a request is too large for the journal, none will go on with it", request_id=request)
        if not self._executor.is_last:
            out.append(self._start(flow, 1))
        return out

    def _start(self, flow: SequenceState, stage: int) -> Outgoing:
        """A start for a stage, or for the journal."""
        plan, body = self._executor.plan, flow.start(journal=stage == JOURNAL).to_bytes()
        return Outgoing(stage, Start(plan.epoch, plan.number, flow.id, flow.resumed_at, body))

    def _sorted_out(self, made: list[Outgoing]) -> list[Outgoing]:
        """What is for this stage is taken, frames of chunks that are not whole are held back."""
        out = []
        for outgoing in made:
            if isinstance(outgoing.item, Token):
                out.append(outgoing)  # for the journal
                self.take(outgoing.item)
            elif isinstance(outgoing.item, Frame) and outgoing.item.sequence in self._seated:
                flow = self._seated[outgoing.item.sequence]
                flow.held.append(outgoing.item)
                out += [Outgoing(outgoing.stage, frame) for frame in flow.released()]
        return out

    def _note(self, pieces: list[Piece], flows: list[SequenceState], speakers: int, elapsed_ns: int) -> None:
        rows = sum(len(piece.inputs) for piece in pieces)
        elapsed_ms = elapsed_ns / NANOSECONDS_PER_MS
        if speakers == len(pieces):
            self._tuner.note(speakers, elapsed_ms)
        elif not speakers:
            self._tuner.note_prompt(rows, elapsed_ms)
        self._stats.stepped(len(pieces), rows, elapsed_ns, [flow.command.request_id for flow in flows])

    def _finish(
        self, flow: SequenceState, reason: FinishReason, error: GenerationFailed | None = None
    ) -> None:
        flow.text.finish(reason, error=error)
        self._leave(flow)

    def _leave(self, flow: SequenceState) -> None:
        """Frees a sequence's place here, and tells the other stages and the journal that it has ended."""
        del self._seated[flow.id]
        if not self._seated:
            self._speed.pause()
        self._executor.end(flow.id)
        plan = self._executor.plan
        for stage in (JOURNAL, 1):
            if stage < len(plan.stages):
                end = Frame(
                    plan.epoch,
                    plan.number,
                    stage,
                    flow.id,
                    len(flow.tokens),
                    0,
                    plan.width,
                    self._executor.dtype,
                    b"",
                    Flags.ENDS_SEQUENCE,
                )
                self._out.append(Outgoing(stage, end))

    def _free_slot(self) -> int:
        used = {flow.slot for flow in self._seated.values()}
        return next(slot for slot in range(self._executor.plan.slots) if slot not in used)

    def _chunk(self, flow: SequenceState, tokens: int) -> int:
        plan = self._executor.plan
        costs = Costs(
            step_ms=self._tuner.step_ms(1),
            token_ms=self._tuner.prompt_token_ms,
            hop_ms=self._hop_ms,
            token_bytes=self._executor.dtype.row_bytes(plan.width),
        )
        partition = flow.command.partition or plan.partition
        return chunk_tokens(partition, tokens, len(plan.stages), costs)


def _neighbours(speaking: Sequence[SequenceState], most: int) -> list[SequenceState]:
    """The sequence that has waited longest, and up to `most` - 1 more in the slots beside it: llama.cpp reads
    the weights once for each run of neighbouring slots."""
    if not speaking:
        return []
    by_slot = {flow.slot: flow for flow in speaking}
    run = [speaking[0]]
    low = high = speaking[0].slot
    while len(run) < most and (high + 1 in by_slot or low - 1 in by_slot):
        if high + 1 in by_slot:
            high += 1
            run.append(by_slot[high])
        else:
            low -= 1
            run.append(by_slot[low])
    return run
