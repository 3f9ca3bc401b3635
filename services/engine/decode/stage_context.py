"""A slice of a model at work: tokens or hidden states in, hidden states or logits out."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from schemas.errors import ContextExceeded, GenerationFailed, InvalidRequest, ModelUnusable
from services.engine.decode.batch import Batch
from services.engine.decode.context import DECODED, INTERRUPTED, Context, Logits
from services.engine.decode.hidden_states import Hidden, HiddenTap
from services.engine.decode.rows import Integers, Rows
from services.engine.model.cuts import architecture_of
from services.engine.model.gguf.header import GgufFault
from services.engine.model.model import Weights
from services.engine.model.slicing import SliceOrigin, slice_origin


class Interrupted(Exception):
    """Raised when a step was interrupted: what the cells have of it is to be forgotten."""


class StageContext:
    """One stage of a pipeline: a slice's weights and the cells of `slots` sequences of `context_tokens` each.

    A whole model is a pipeline of one stage. Cache types and cells are those of the unsplit engine, so that
    with Q8_0 weights on the CPU the stages together compute its numbers to the last bit. One thread at a
    time may use it. A context manager that closes itself.
    """

    def __init__(
        self, weights: Weights, *, slots: int, context_tokens: int, batch_tokens: int, threads: int = 1
    ) -> None:
        """Takes over the weights, for a first or last slice usually those of a Model, with its vocabulary.

        Raises ModelUnusable with a sentence that names the file and what is wrong with it.
        """
        self.weights = weights
        self._slots, self._context_tokens, self._batch_tokens = slots, context_tokens, batch_tokens
        try:
            self.origin = _origin(weights)
            self._width = weights.width
            self._tap = _tap(weights, self.origin, batch_tokens)
            takes_tokens = self.origin.is_first or (self._tap is not None and self._tap.puts)
            self._batch = Batch(batch_tokens, None if takes_tokens else self._width)
            self.context = Context(
                weights,
                slots=slots,
                context_tokens=context_tokens,
                batch_tokens=batch_tokens,
                threads=threads,
                exact=not weights.gpu_layers,
                tap=self._tap,
            )
        except ModelUnusable:
            weights.close()
            raise

    def hidden_states(self, rows: Rows) -> Hidden:
        """What every stage but the last makes of rows: shape (rows, width), in an array of its own.

        Raises InvalidRequest for rows that are none of this stage's, ContextExceeded for a position beyond
        the context, and GenerationFailed where llama.cpp fails; the slots' cells are to be dropped then.
        Interrupted where its context was interrupted meanwhile.
        """
        if self._tap is None or not self._tap.takes:
            raise InvalidRequest("the last stage gives logits, not hidden states", field="rows")
        self._check(rows)
        if rows.slots[0] == rows.slots[-1]:
            return self._tapped(rows, self._tap)
        states = np.empty((len(rows), self._width), dtype=np.float32)
        for piece in rows.equal_pieces(self._batch_tokens):
            states[piece] = self._tapped(rows.take(piece), self._tap)
        return states

    def logits(self, rows: Rows, wanted: Sequence[int]) -> Logits:
        """What the last stage makes of rows: the logits of those with the indices `wanted`, at most one for
        each slot, shape (wanted, vocabulary), in an array of their own. Until the next call `context` can
        be sampled from at the same indices. Errors as with hidden_states()."""
        if not self.origin.is_last:
            raise InvalidRequest("only the last stage gives logits", field="rows")
        self.evaluate(rows, wanted)
        chosen = [self.context.logits(row) for row in wanted]
        return np.array(chosen, dtype=np.float32).reshape(len(wanted), self.weights.vocab_size)

    def evaluate(self, rows: Rows, wanted: Sequence[int] = ()) -> None:
        """Puts rows into the cells. In a last stage `context` can be sampled from afterwards, at the indices
        `wanted`, without a copy of their logits; a stage before it has nothing to say of them. Errors as
        with hidden_states()."""
        if not self.origin.is_last:
            self.hidden_states(rows)
            return
        if len(set(wanted)) != len(wanted) or not set(wanted) <= set(range(len(rows))):
            raise InvalidRequest("logits are wanted of rows that are not there", field="wanted")
        if len(wanted) > self._slots:
            raise InvalidRequest("logits are wanted of more than one row for each slot", field="wanted")
        self._check(rows)
        self._decode(rows, wanted)

    def forget(self, slot: int, keep: int = 0) -> bool:
        """Drops a slot's cells from position `keep` on, as Context.forget() does."""
        return self.context.forget(slot, keep)

    def close(self) -> None:
        """Frees cells and weights; nothing else may be called afterwards."""
        self.context.close()
        self.weights.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, rows: Rows) -> None:
        """llama.cpp ends the process for a batch that is too large, and reads past tokens that are none."""
        rows.check()
        shape = (len(rows),) if self.origin.is_first else (len(rows), self._width)
        if len(rows) > self._batch_tokens or rows.inputs.shape != shape:
            what = "tokens" if self.origin.is_first else f"states of width {self._width}"
            raise InvalidRequest(f"a step of this stage is up to {self._batch_tokens} {what}", field="rows")
        first_position, last_position = _extremes(rows.positions)
        if rows.slots[0] < 0 or rows.slots[-1] >= self._slots or first_position < 0:
            raise InvalidRequest(f"a row is of a slot that this stage of {self._slots} has not", field="rows")
        if last_position >= self._context_tokens:
            raise ContextExceeded(f"a stage has room for {self._context_tokens} tokens of a sequence")
        if self.origin.is_first:
            least, most = _extremes(rows.inputs)
            if least < 0 or most >= self.weights.vocab_size:
                raise InvalidRequest("a token is none of the vocabulary", field="rows")

    def _tapped(self, rows: Rows, tap: HiddenTap) -> Hidden:
        tap.expect(len(rows))
        self._decode(rows, None)
        return tap.taken()

    def _decode(self, rows: Rows, wanted: Sequence[int] | None) -> None:
        inputs, tap = rows.inputs, self._tap
        if tap is not None and tap.puts:
            states = np.asarray(inputs, dtype=np.float32)
            tap.put(states[piece] for piece in rows.equal_pieces(self._batch_tokens))
            inputs = np.zeros(len(rows), dtype=np.int32)
        self._batch.fill(rows.slots, rows.positions, inputs, wanted)
        status = self.context.decode(self._batch)
        if status == INTERRUPTED:
            raise Interrupted
        if status != DECODED:
            raise GenerationFailed(f"llama.cpp cannot evaluate this step of a stage (status {status})")
        if tap is not None:
            tap.check_put()


def _extremes(numbers: Integers | Hidden) -> tuple[int, int]:
    """The smallest and the largest."""
    if len(numbers) == 1:
        return int(numbers[0]), int(numbers[0])
    return int(numbers.min()), int(numbers.max())


def _origin(weights: Weights) -> SliceOrigin:
    """The slice's origin; a whole model is a slice of all its layers, whose checksum nobody needs."""
    try:
        origin = slice_origin(weights.header)
    except GgufFault as fault:
        raise ModelUnusable(f"the model file {weights.path} is not usable: {fault}") from fault
    return origin or SliceOrigin("", 0, weights.layers, weights.layers)


def _tap(weights: Weights, origin: SliceOrigin, batch_tokens: int) -> HiddenTap | None:
    """What takes states out of the slice's graph, and puts such into it where llama.cpp would change them."""
    layer = None if origin.is_last else weights.layers - 1
    entry = None if origin.is_first else architecture_of(weights.header).entry
    if layer is None and entry is None:
        return None
    return HiddenTap(layer, width=weights.width, rows=batch_tokens, entry=entry)
