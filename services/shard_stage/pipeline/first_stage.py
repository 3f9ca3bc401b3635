"""The first stage: keeps the sequences, feeds their tokens into the pipeline, and takes what comes back."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import numpy as np

from schemas.errors import GenerationFailed
from schemas.pipelines.activations import MAX_FRAME_BYTES, Flags, Frame, Speculation
from schemas.pipelines.plan import PipelinePlan
from schemas.pipelines.stage_wire import Item, Outcome, Sent, Start, Token
from services.chassis.logs import get_logger
from services.engine.batching.batch_size import BatchSizeTuner, group_size, neighbours
from services.engine.batching.interruption import Interruption
from services.engine.batching.scheduler import Part, Scheduler
from services.engine.decode.stage_context import Interrupted
from services.engine.model.architectures.table import ARCHITECTURES
from services.engine.model.model import Model
from services.engine.sequence.generation import FinishReason
from services.shard_stage.pipeline.drafts import Drafts, Proposer
from services.shard_stage.pipeline.later_stage import (
    BATCH_TOKENS,
    NANOSECONDS_PER_MS,
    PROMPT_TOKENS_BESIDE_DECODING,
)
from services.shard_stage.pipeline.prefill_chunks import Costs, chunk_tokens
from services.shard_stage.pipeline.sequence_state import SequenceState, logprob_of, resume_position
from services.shard_stage.pipeline.speed import Speed
from services.shard_stage.pipeline.step_executor import Outgoing, Piece, StepExecutor
from services.shard_stage.pipeline.step_stats import StepStats

MOST_RESUMPTIONS = 4
FAIR_CHANCE_S = 1.0
"""A shorter epoch does not count towards MOST_RESUMPTIONS: after a failure of the network each stage may
begin one."""
LEAST_PREFIX = 64
"""A shorter beginning that two prompts share is evaluated again, which takes a step. What is not sent is not
in the log either: a stage that is replaced does not find it there."""
JOURNAL = 0
"""Messages to stage 0 are also the journal that a new stage 0 reads: starts, tokens, ends."""

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
        proposer: Callable[[], Proposer] | None = None,
    ) -> None:
        """`carried` is the most bytes of a message. Without a `proposer` nothing is guessed ahead."""
        self._executor = executor
        self._carried = carried
        self._model = model
        self._tuner = tuner
        self._stats = stats
        self._hop_ms = hop_ms
        self._windowed = ARCHITECTURES[executor.plan.architecture].window_period > 0
        # Cells before a window are gone: such a stage goes back by no more than a token.
        self._proposer = None if self._windowed or executor.is_last else proposer
        self._speculates = False
        self._scheduler: Scheduler[SequenceState] = Scheduler(
            model,
            executor.context,
            slots=executor.plan.slots,
            context_tokens=executor.plan.context_tokens,
            batch_tokens=BATCH_TOKENS,
            prompt_tokens_beside=PROMPT_TOKENS_BESIDE_DECODING,
            least_prefix=executor.plan.context_tokens if self._windowed else LEAST_PREFIX,
        )
        self._interruption: Interruption[SequenceState] = Interruption(
            executor.context.context.interrupt, attrgetter("cancelled")
        )
        self._ended: dict[int, int] = {}  # by slot: whose cells the other stages keep
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
        return self._scheduler.running

    @property
    def live_tokens(self) -> int:
        """How many tokens a new cut would have evaluated again: all that is evaluated of the sequences that
        have begun. Any thread may ask."""
        return sum(sequence.fed for sequence in self.live)

    @property
    def shares_steps(self) -> bool:
        """Whether there is more than one sequence."""
        return len(self.live) + len(self._scheduler.waiting) > 1

    @property
    def tokens_per_s(self) -> float | None:
        """The rate at which the last tokens came while there was work; None before there are enough."""
        return self._speed.per_s

    @property
    def waits_for_tokens(self) -> bool:
        """Whether some sequence has nothing more to send and waits for its next token."""
        return any(not sequence.due for sequence in self.live)

    @property
    def has_work(self) -> bool:
        """Whether step() has something to do."""
        if not self._open:
            return False
        due = bool(self._out) or self._scheduler.can_admit or any(sequence.due for sequence in self.live)
        return due or self._guess() is not None

    def cells(self) -> dict[int, int]:
        """How many tokens of each sequence are evaluated here."""
        return {sequence.id: sequence.fed for sequence in self.live}

    # --- what comes in ------------------------------------------------------------------

    def submit(self, sequence: SequenceState) -> None:
        """A new sequence; it begins when there is room for it."""
        self._speculate_on(sequence)
        self._scheduler.submit(sequence)

    def adopt(self, sequence: SequenceState, *, fill: bool = True) -> None:
        """A sequence of a stage 0 that is gone: its tokens are evaluated here, as far as they are known, if
        `fill`; without, all stages evaluate them later. One that cannot be evaluated ends alone; one that
        nobody waits for any more has ended."""
        if sequence.cancelled:
            sequence.finish("cancelled")
            return
        self._speculate_on(sequence)
        if not self._scheduler.resume(sequence):
            self._scheduler.submit(sequence)
            return
        sequence.send_at = len(sequence.tokens)
        try:
            while fill and sequence.due > 1:
                count = min(sequence.due - 1, BATCH_TOKENS)
                tokens = np.array(sequence.tokens[sequence.fed : sequence.fed + count], dtype=np.int32)
                self._executor.fill(
                    [Piece(sequence.id, sequence.slot, sequence.fed, tokens, wants_token=False)]
                )
                sequence.fed += count
        except GenerationFailed as error:
            self._scheduler.finish(sequence, "error", error)

    def hang_up(self) -> None:
        """Nobody waits for some sequence any more: a step that reads its prompt ends now. Any thread may say
        so; cancel() has to follow, on this stage's own."""
        self._interruption.look()

    def cancel(self, number: int) -> None:
        """Ends a sequence, if it still runs."""
        sequence = self._sequence(number)
        if sequence is not None:
            self._finish(sequence, "cancelled")
        for waiting in [sequence for sequence in self._scheduler.waiting if sequence.id == number]:
            self._scheduler.waiting.remove(waiting)
            waiting.finish("cancelled")

    def begin_epoch(self, plan: PipelinePlan) -> None:
        """Closed until open() says where all stages are."""
        self._executor.begin_epoch(plan)
        self._speed.pause()
        self._open = self.lost = False
        self._out.clear()

    def open(self, cells_of_stages: Sequence[Mapping[int, int]], *, speculates: bool = False) -> None:
        """All stages of this epoch are ready, with so many tokens of each sequence; if all of them know how,
        the pipeline `speculates`."""
        self._open, self._speculates = True, speculates
        now_s = self._clock()
        had_a_chance, self._opened_s = now_s - self._opened_s >= FAIR_CHANCE_S, now_s
        self._scheduler.forget_ended()
        self._ended.clear()
        for sequence in self.live:
            held = [sequence.fed, *(cells.get(sequence.id, 0) for cells in cells_of_stages)]
            position = resume_position(len(sequence.tokens), held, windowed=self._windowed)
            if not self._executor.context.forget(sequence.slot, keep=position):
                position = 0
                self._executor.context.forget(sequence.slot)
            if had_a_chance:
                sequence.note_resumption()
            sequence.follows = None
            sequence.resume_at(position, self._chunk(sequence, len(sequence.tokens) - position))
            if sequence.resumed > MOST_RESUMPTIONS:
                reason = f"the pipeline was lost {sequence.resumed} times at the same token of this text"
                self._finish(sequence, "error", GenerationFailed(reason))

    def close(self) -> tuple[SequenceState, ...]:
        """Ends without a word to the other stages; the sequences that were not done."""
        self._open = False
        return self._scheduler.close()

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
        sequence = self._sequence(token.sequence)
        self._speed.token(self._clock())
        if sequence is None:
            self.drops["sequence"] += 1
        elif token.outcome is Outcome.FAILED:
            self._finish(
                sequence, "error", GenerationFailed("a stage of the pipeline could not evaluate this")
            )
        elif token.outcome is Outcome.NOT_FINITE:
            self._finish(sequence, "error", GenerationFailed("the model computed NaN for this prompt"))
        elif token.position != len(sequence.tokens) or sequence.due:
            self.drops["position"] += 1
        else:
            self._follow(sequence, token)

    def _follow(self, sequence: SequenceState, token: Token) -> None:
        sequence.draws = token.draws
        chosen = None if token.outcome is Outcome.GRAMMAR_END else token.token
        was_sent = chosen is not None and self._compare(sequence, chosen)
        if self._scheduler.take(sequence, chosen, logprob_of(self._model, token, sequence.sampling)):
            sequence.fed += was_sent
            sequence.send_at = len(sequence.tokens)
        else:
            self._leave(sequence)

    def _sequence(self, number: int) -> SequenceState | None:
        return next((sequence for sequence in self.live if sequence.id == number), None)

    # --- what is guessed ----------------------------------------------------------------

    def _speculate_on(self, sequence: SequenceState) -> None:
        if self._proposer is not None:
            sequence.drafts = Drafts(self._proposer())

    def _compare(self, sequence: SequenceState, token: int) -> bool:
        """Whether the token that follows was guessed, and sent; what was guessed wrong is forgotten."""
        drafts, guessed = sequence.drafts, sequence.guessed
        was_sent = drafts is not None and drafts.check(sequence.tokens, token)
        if guessed and not was_sent:
            self._executor.context.forget(sequence.slot, keep=sequence.fed)
        return was_sent

    def _guess(self) -> tuple[SequenceState, int] | None:
        """A sequence and its guessed next token, while there are stages that would have nothing to do: every
        sequence keeps one of them busy, and so does every guess."""
        if not self._speculates or self._proposer is None:
            return None
        plan = self._executor.plan
        free = len(plan.stages) - sum(1 + sequence.guessed for sequence in self.live)
        for sequence in self.live if free > 0 else ():
            token = sequence.guess(sequence.guessed + free, plan.context_tokens)
            if token is not None and not self._model.ends_generation(token):
                return sequence, token
        return None

    def _guessed(self) -> list[Outgoing]:
        """Evaluates a guessed token, if there is one; what is to be sent."""
        found = self._guess()
        if found is None:
            return []
        sequence, token = found
        drafts = sequence.drafts
        assert drafts is not None
        position = len(sequence.tokens) + len(drafts.sent)
        drafts.sent.append(token)
        speculation = Speculation(drafts.attempt, len(sequence.tokens), token)
        row = np.array([token], dtype=np.int32)
        piece = Piece(sequence.id, sequence.slot, position, row, wants_token=True, speculation=speculation)
        started_ns = time.perf_counter_ns()
        made = self._executor.run([piece])
        elapsed_ns = time.perf_counter_ns() - started_ns
        self._tuner.note(1, elapsed_ns / NANOSECONDS_PER_MS)
        self._stats.stepped(1, 1, elapsed_ns, [sequence.command.request_id])
        return made

    # --- what is done -------------------------------------------------------------------

    def step(self) -> list[Outgoing]:
        """Evaluates the next micro-batch; what is to be sent."""
        for sequence in self._scheduler.admit():
            sequence.follows = self._ended.pop(sequence.slot, None)
            sequence.resume_at(sequence.fed, self._chunk(sequence, sequence.due))
        out = list(self._out)
        self._out.clear()
        parts = self._scheduler.compose(self._group)
        if not parts:
            return out + self._guessed()
        for part in parts:
            out += self._announced(part.sequence)
        started_ns = time.perf_counter_ns()
        prompts = [part.sequence for part in parts if not part.decodes]
        try:
            with self._interruption.step([part.sequence for part in parts], prompts):
                made = self._executor.run([_piece(part) for part in parts])
        except Interrupted:
            self._undo(parts)
            return out
        elapsed_ns = time.perf_counter_ns() - started_ns
        out += self._sorted_out(made)
        self._note(parts, elapsed_ns)
        return out

    def _undo(self, parts: Sequence[Part[SequenceState]]) -> None:
        """A step was interrupted: what it has of each sequence is evaluated again, in another one."""
        for part in parts:
            self._executor.context.forget(part.sequence.slot, keep=part.position)
            part.sequence.fed = part.position
        self._interruption.undone([part.sequence for part in parts])

    def _group(self, decoding: Sequence[SequenceState]) -> list[SequenceState]:
        """Those of the sequences that decode that are sent on together."""
        active = sum(sequence.fed >= len(sequence.prompt) for sequence in self.live)
        size = group_size(self._tuner, max(active, len(decoding)), len(self._executor.plan.stages))
        return neighbours(decoding, size)

    def _announced(self, sequence: SequenceState) -> list[Outgoing]:
        """A sequence's start, before its first frame in an epoch: for the next stage and for the journal."""
        if sequence.started:
            return []
        sequence.started = True
        self._executor.begin(sequence.id, sequence.start(journal=False))
        journal = self._start(sequence, JOURNAL)
        out = [journal] if len(journal.item.to_bytes()) <= self._carried else []
        if not out:
            request = sequence.command.request_id
            log.warning("a request is too large for the journal, none will go on with it", request_id=request)
        if not self._executor.is_last:
            out.append(self._start(sequence, 1))
        return out

    def _start(self, sequence: SequenceState, stage: int) -> Outgoing:
        """A start for a stage, or for the journal."""
        plan, body = self._executor.plan, sequence.start(journal=stage == JOURNAL).to_bytes()
        return Outgoing(stage, Start(plan.epoch, plan.number, sequence.id, sequence.resumed_at, body))

    def _sorted_out(self, made: list[Outgoing]) -> list[Outgoing]:
        """Takes the items for this stage, and holds back frames of incomplete chunks."""
        out = []
        for outgoing in made:
            if isinstance(outgoing.item, Token):
                out.append(outgoing)  # for the journal
                self.take(outgoing.item)
            elif isinstance(outgoing.item, Frame) and (sequence := self._sequence(outgoing.item.sequence)):
                sequence.held.append(outgoing.item)
                out += [Outgoing(outgoing.stage, frame) for frame in sequence.released()]
        return out

    def _note(self, parts: Sequence[Part[SequenceState]], elapsed_ns: int) -> None:
        rows, decoding = sum(len(part.tokens) for part in parts), sum(part.decodes for part in parts)
        elapsed_ms = elapsed_ns / NANOSECONDS_PER_MS
        if decoding == len(parts):
            self._tuner.note(decoding, elapsed_ms)
        elif not decoding:
            self._tuner.note_prompt(rows, elapsed_ms)
        requests = [part.sequence.command.request_id for part in parts]
        self._stats.stepped(len(parts), rows, elapsed_ns, requests)

    def _finish(
        self, sequence: SequenceState, reason: FinishReason, error: GenerationFailed | None = None
    ) -> None:
        self._scheduler.finish(sequence, reason, error)
        self._leave(sequence)

    def _leave(self, sequence: SequenceState) -> None:
        """Tells the other stages and the journal that a sequence has ended."""
        if not self.live:
            self._speed.pause()
        last = sequence.id if sequence.started else sequence.follows
        if last is not None:
            self._ended[sequence.slot] = last
        self._executor.end(sequence.id)
        plan = self._executor.plan
        for stage in (JOURNAL, 1):
            if stage < len(plan.stages):
                end = Frame(
                    plan.epoch,
                    plan.number,
                    stage,
                    sequence.id,
                    len(sequence.tokens),
                    0,
                    plan.width,
                    self._executor.dtype,
                    b"",
                    Flags.ENDS_SEQUENCE,
                )
                self._out.append(Outgoing(stage, end))

    def _chunk(self, sequence: SequenceState, tokens: int) -> int:
        plan = self._executor.plan
        costs = Costs(
            step_ms=self._tuner.step_ms(1),
            token_ms=self._tuner.prompt_token_ms,
            hop_ms=self._hop_ms,
            token_bytes=self._executor.dtype.row_bytes(plan.width),
        )
        partition = sequence.command.partition or plan.partition
        return chunk_tokens(partition, tokens, len(plan.stages), costs)


def _piece(part: Part[SequenceState]) -> Piece:
    tokens = np.array(part.tokens, dtype=np.int32)
    sequence = part.sequence
    return Piece(sequence.id, sequence.slot, part.position, tokens, part.wants_token, sequence.speculation)
