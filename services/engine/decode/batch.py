"""The batch of tokens for llama.cpp: one set of arrays, allocated once and filled again and again."""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np

from services.engine.model.model import Tokens


class Batch:
    """Up to `capacity` tokens of several sequences; each belongs to one slot."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._slots = np.zeros(capacity, dtype=np.int32)
        self._wanted = np.zeros(capacity, dtype=np.int8)
        self._one_slot_each = np.ones(capacity, dtype=np.int32)
        item_bytes = self._slots.itemsize
        self._slot_addresses = self._slots.ctypes.data + item_bytes * np.arange(capacity, dtype=np.uintp)
        self.struct = self._describe()

    @property
    def room(self) -> int:
        """How many tokens still fit."""
        return self.capacity - self.size

    def clear(self) -> None:
        """Empties the batch."""
        self.size = 0

    def add_token(self, slot: int, position: int, token: int) -> int:
        """Adds one token whose logits are wanted; its row."""
        row = self.size
        self._tokens[row] = token
        self._positions[row] = position
        self._slots[row] = slot
        self._wanted[row] = 1
        self.size = row + 1
        return row

    def add_chunk(self, slot: int, position: int, tokens: Tokens, *, want_last: bool) -> int:
        """Adds a piece of a prompt, with logits of its last token if they are wanted; the last row."""
        start, end = self.size, self.size + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self._slots[start:end] = slot
        self._wanted[start:end] = 0
        self._wanted[end - 1] = want_last
        self.size = end
        return end - 1

    def want_all(self) -> None:
        """Asks for the logits of every token."""
        self._wanted[: self.size] = 1

    def filled(self) -> llama_cpp.llama_batch:
        """The batch as llama.cpp takes it."""
        self.struct.n_tokens = self.size
        return self.struct

    def _describe(self) -> llama_cpp.llama_batch:
        """The C structure over this object's arrays."""
        struct = llama_cpp.llama_batch()
        integers = ctypes.POINTER(ctypes.c_int32)
        struct.token = self._tokens.ctypes.data_as(integers)
        struct.pos = self._positions.ctypes.data_as(integers)
        struct.n_seq_id = self._one_slot_each.ctypes.data_as(integers)
        struct.seq_id = self._slot_addresses.ctypes.data_as(ctypes.POINTER(integers))
        struct.logits = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return struct
