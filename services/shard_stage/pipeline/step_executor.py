"""The step executor: pieces of sequences in, frames for the next stage or tokens for the first one out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from schemas.errors import GenerationFailed, InvalidRequest, WorkerFailed
from schemas.pipelines.activations import Dtype, Flags, Frame, Speculation
from schemas.pipelines.plan import PipelinePlan
from schemas.pipelines.stage_wire import Item, Outcome, Token
from schemas.pipelines.stages import SequenceStart
from services.engine.decode.activation_codec import encode_states
from services.engine.decode.hidden_states import Hidden
from services.engine.decode.logprobs import probability
from services.engine.decode.rows import RowGroup, Rows
from services.engine.decode.sampler import TokenSampler, new_sampler
from services.engine.decode.stage_context import StageContext
from services.engine.model.model import Model, Tokens

NO_TOKEN = -1


class Piece(NamedTuple):
    """Consecutive tokens of a sequence from `position` on; after the last one a token is wanted or not.
    `speculation` is there where the text is guessed ahead."""

    sequence: int
    slot: int
    position: int
    inputs: Tokens | Hidden
    wants_token: bool
    speculation: Speculation | None = None

    @property
    def guess(self) -> int | None:
        """The token, if it is guessed; None where it is certain."""
        return None if self.speculation is None else self.speculation.token


class Outgoing(NamedTuple):
    """An item, and the stage that it is for."""

    stage: int
    item: Item


@dataclass
class Decoding:
    """The sampler of a sequence, what its start says of it, and the newest token of this epoch."""

    sampler: TokenSampler
    prompt_tokens: int
    alternatives: int
    newest: int | None = None


class StepExecutor:
    """Evaluates steps of one stage in one epoch. Only the inference thread uses it."""

    def __init__(self, context: StageContext, plan: PipelinePlan, stage: int) -> None:
        self.context = context
        self.plan = plan
        self.stage = stage
        self.dtype = Dtype[plan.dtype.upper()]
        self._decoding: dict[int, Decoding] = {}
        self._step_began_s: float | None = None

    @property
    def step_lasts_s(self) -> float:
        """For how long the step at hand has been running, 0 where there is none; to be asked by any
        thread."""
        began_s = self._step_began_s
        return time.monotonic() - began_s if began_s is not None else 0.0

    @property
    def is_last(self) -> bool:
        """Whether this stage samples."""
        return self.stage == len(self.plan.stages) - 1

    def begin_epoch(self, plan: PipelinePlan) -> None:
        """Samplers are made anew: whatever was sampled and did not arrive is sampled again."""
        self.plan = plan
        for sequence in list(self._decoding):
            self.end(sequence)

    def begin(self, sequence: int, start: SequenceStart) -> None:
        """Makes a sequence's sampler, in a last stage. Raises InvalidRequest for one that cannot be made."""
        model = self.context.weights
        if not self.is_last or not isinstance(model, Model):
            return
        self.end(sequence)
        sampler = new_sampler(
            model, start.sampling, said=start.generated, draws=start.draws, prompt=start.recent
        )
        self._decoding[sequence] = Decoding(sampler, start.prompt_tokens, start.sampling.logprobs)

    def end(self, sequence: int) -> None:
        """Frees a sequence's sampler."""
        decoding = self._decoding.pop(sequence, None)
        if decoding is not None:
            decoding.sampler.close()

    def fill(self, pieces: Sequence[Piece]) -> None:
        """Puts pieces into the cells, and nothing else: the replay of a log."""
        self._step_began_s = time.monotonic()
        try:
            self.context.evaluate(_rows(pieces))
        finally:
            self._step_began_s = None

    def run(self, pieces: Sequence[Piece]) -> list[Outgoing]:
        """Evaluates pieces, at most one of each slot. A failure becomes a token that says so, for each.
        Raises Interrupted as the context does."""
        ordered = sorted(pieces, key=lambda piece: piece.slot)
        self._step_began_s = time.monotonic()
        try:
            rows = _rows(ordered)
            return self._sampled(ordered, rows) if self.is_last else self._passed_on(ordered, rows)
        except GenerationFailed:
            return [found for piece in ordered for found in self._failed(piece)]
        finally:
            self._step_began_s = None

    def failure(self, sequence: int, position: int, outcome: Outcome = Outcome.FAILED) -> Outgoing:
        """Tells stage 0 that a sequence cannot go on."""
        return Outgoing(
            0, Token(self.plan.epoch, self.plan.number, sequence, position, NO_TOKEN, outcome=outcome)
        )

    def contradicts(self, piece: Piece) -> bool:
        """Whether this stage knows that a piece's token was guessed wrong: only a last one does."""
        if not self.is_last or piece.guess is None:
            return False
        decoding = self._decoding.get(piece.sequence)
        return decoding is None or decoding.newest != piece.guess

    def _failed(self, piece: Piece, outcome: Outcome = Outcome.FAILED) -> list[Outgoing]:
        """The failure of a piece. That of a guess is none of the text's as long as nobody knows that it is
        right; if so, its frame is missing, and it is computed again as a certain one."""
        if piece.guess is not None and not self.is_last:
            return []
        return [self.failure(piece.sequence, piece.position, outcome)]

    def _passed_on(self, pieces: Sequence[Piece], rows: Rows) -> list[Outgoing]:
        states, start = self.context.hidden_states(rows), 0
        out: list[Outgoing] = []
        for piece in pieces:
            end = start + len(piece.inputs)
            out += self._frame(piece, states[start:end])
            start = end
        return out

    def _frame(self, piece: Piece, states: Hidden) -> list[Outgoing]:
        try:
            payload = encode_states(states, self.dtype)
        except GenerationFailed:
            return self._failed(piece, Outcome.NOT_FINITE)
        frame = Frame(
            epoch=self.plan.epoch,
            pipeline=self.plan.number,
            stage=self.stage + 1,
            sequence=piece.sequence,
            position=piece.position,
            count=len(states),
            width=states.shape[1],
            dtype=self.dtype,
            payload=payload,
            flags=Flags.WANTS_TOKEN if piece.wants_token else Flags.NONE,
            speculation=piece.speculation,
        )
        return [Outgoing(self.stage + 1, frame)]

    def _sampled(self, pieces: Sequence[Piece], rows: Rows) -> list[Outgoing]:
        ends = accumulate(len(piece.inputs) for piece in pieces)
        wanted = [(piece, end - 1) for piece, end in zip(pieces, ends, strict=True) if piece.wants_token]
        self.context.evaluate(rows, [row for _, row in wanted])
        return [self._sample(piece, row) for piece, row in wanted]

    def _sample(self, piece: Piece, row: int) -> Outgoing:
        position = piece.position + len(piece.inputs)
        decoding = self._decoding.get(piece.sequence)
        if decoding is None:
            return self.failure(piece.sequence, position)
        decoding.newest = None
        context = self.context.context
        if position == decoding.prompt_tokens and np.isnan(context.logits(row)).any():
            return self.failure(piece.sequence, position, Outcome.NOT_FINITE)
        try:
            chosen = decoding.sampler.sample(context, row)
        except (InvalidRequest, WorkerFailed):
            return self.failure(piece.sequence, position)
        decoding.newest = chosen
        token = Token(
            self.plan.epoch,
            self.plan.number,
            piece.sequence,
            position,
            NO_TOKEN if chosen is None else chosen,
            draws=decoding.sampler.draws,
            outcome=Outcome.GRAMMAR_END if chosen is None else Outcome.TOKEN,
        )
        if chosen is not None and decoding.alternatives:
            found = probability(context.logits(row), chosen, decoding.alternatives)
            token = replace(token, logprob=found.logprob, alternatives=found.top)
        return Outgoing(0, token)


def _rows(pieces: Sequence[Piece]) -> Rows:
    return Rows.of([RowGroup(piece.slot, piece.position, piece.inputs) for piece in pieces])
