"""The batch of rows for llama.cpp: one set of arrays, allocated once and filled again and again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import llama_cpp
import numpy as np
import numpy.typing as npt

from services.engine.decode.hidden_states import Hidden
from services.engine.model.model import Tokens


class Batch:
    """Up to `capacity` rows of several sequences; each belongs to one slot, and is a token, or a hidden state
    where there is a `width`."""

    def __init__(self, capacity: int, width: int | None = None) -> None:
        self.capacity = capacity
        self.size = 0
        self._inputs: Tokens | Hidden = (
            np.zeros(capacity, dtype=np.int32)
            if width is None
            else np.zeros((capacity, width), dtype=np.float32)
        )
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._slots = np.zeros(capacity, dtype=np.int32)
        self._wanted = np.zeros(capacity, dtype=np.int8)
        self._one_slot_each = np.ones(capacity, dtype=np.int32)
        item_bytes = self._slots.itemsize
        self._slot_addresses = self._slots.ctypes.data + item_bytes * np.arange(capacity, dtype=np.uintp)
        self.struct = self._describe()

    @property
    def room(self) -> int:
        """How many rows still fit."""
        return self.capacity - self.size

    def clear(self) -> None:
        """Empties the batch."""
        self.size = 0

    def add_token(self, slot: int, position: int, token: int) -> int:
        """Adds one token whose logits are wanted; its row."""
        row = self.size
        self._inputs[row] = token
        self._positions[row] = position
        self._slots[row] = slot
        self._wanted[row] = 1
        self.size = row + 1
        return row

    def add_chunk(self, slot: int, position: int, tokens: Tokens | list[int], *, want_last: bool) -> int:
        """Adds a piece of a prompt, with logits of its last token if they are wanted; the last row."""
        start, end = self.size, self.size + len(tokens)
        self._inputs[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self._slots[start:end] = slot
        self._wanted[start:end] = 0
        self._wanted[end - 1] = want_last
        self.size = end
        return end - 1

    def fill(
        self,
        slots: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        inputs: Tokens | Hidden,
        wanted: Iterable[int] | None = None,
    ) -> None:
        """Replaces everything by these rows; logits of the rows `wanted` are computed, or those of all."""
        size = self.size = len(slots)
        self._slots[:size] = slots
        self._positions[:size] = positions
        self._inputs[:size] = inputs
        self._wanted[:size] = wanted is None
        for row in wanted or ():
            self._wanted[row] = 1

    def want_all(self) -> None:
        """Asks for the logits of every row."""
        self._wanted[: self.size] = 1

    def filled(self) -> llama_cpp.llama_batch:
        """The batch as llama.cpp takes it."""
        self.struct.n_tokens = self.size
        return self.struct

    def _describe(self) -> llama_cpp.llama_batch:
        """The C structure over this object's arrays."""
        struct = llama_cpp.llama_batch()
        integers = ctypes.POINTER(ctypes.c_int32)
        if self._inputs.ndim == 1:
            struct.token = self._inputs.ctypes.data_as(integers)
        else:
            struct.embd = self._inputs.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        struct.pos = self._positions.ctypes.data_as(integers)
        struct.n_seq_id = self._one_slot_each.ctypes.data_as(integers)
        struct.seq_id = self._slot_addresses.ctypes.data_as(ctypes.POINTER(integers))
        struct.logits = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return struct
