"""A llama.cpp context: the KV cache of all slots, and the decoding of batches."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from schemas.errors import ModelUnusable
from services.engine.decode.batch import Batch
from services.engine.decode.hidden_states import HiddenTap
from services.engine.model.memory.cells import cache_types_of, layers_cell_bytes
from services.engine.model.model import Weights

Logits = npt.NDArray[np.float32]

DECODED = 0
NO_KV_SPACE = 1
INTERRUPTED = 2

GIGABYTE = 1e9

_IS_NO_EMPTY_TEXT = llama_cpp.ggml_abort_callback(
    ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value or 0
)
"""What llama.cpp asks before each operation, whether it is to go on no more: C's strlen, which is 1 for one
character. A function in Python would wait for the interpreter a thousand times a step."""


class Context:
    """The state of `slots` sequences of up to `context_tokens` each. Only one thread may use it."""

    def __init__(
        self,
        model: Weights,
        *,
        slots: int,
        context_tokens: int,
        batch_tokens: int,
        threads: int,
        exact: bool = True,
        tap: HiddenTap | None = None,
        logits_rows: int = 0,
    ) -> None:
        """`logits_rows`: of so many tokens of a batch may the logits be wanted, by default of one a slot.
        `exact`: a sequence's numbers do not depend on its neighbours in the batch, nor on how its prompt
        was cut (with Q8_0 weights, on the CPU). `tap`: takes hidden states, and no logits are computed then,
        or puts such in.
        Raises ModelUnusable where there is no memory for it."""
        self.model = model
        self.threads = threads
        self._tap = tap
        if not model.gpu_layers:
            _require_memory(model, slots * context_tokens)
        params = _parameters(slots, context_tokens, batch_tokens, threads)
        params.type_k, params.type_v = cache_types_of(model.header, exact=exact)
        params.n_outputs_max = max(params.n_outputs_max, logits_rows)
        if tap:
            params.cb_eval = tap.callback
            if tap.takes:
                params.n_outputs_max = batch_tokens
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            size = f"{slots} sequences of {context_tokens} tokens"
            raise ModelUnusable(f"llama.cpp cannot make room for {size} of the model {model.path}")
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._interruption = ctypes.create_string_buffer(2)
        if self.copies:
            llama_cpp.llama_set_abort_callback(self.handle, _IS_NO_EMPTY_TEXT, self._interruption)

    def close(self) -> None:
        """Frees the context; nothing else may be called afterwards."""
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None

    def decode(self, batch: Batch) -> int:
        """Evaluates a batch; llama_decode's status: 0 done, 1 no KV space, 2 interrupted, else a failure."""
        return int(llama_cpp.llama_decode(self.handle, batch.filled()))

    def use_threads(self, threads: int) -> None:
        """Has decode() compute with so many threads from now on. An exact context gives the same numbers with
        any."""
        if threads != self.threads:
            llama_cpp.llama_set_n_threads(self.handle, threads, threads)
            self.threads = threads

    def interrupt(self, wanted: bool = True) -> None:
        """Has decode() end as interrupted before its next operation, from any thread, until it is not
        `wanted`; what cells have of that batch is to be forgotten. On the CPU, for models of plain memory."""
        self._interruption[0] = b"x" if wanted else b"\0"

    def logits(self, row: int) -> Logits:
        """The logits of a row of the last batch, shape (vocabulary,), valid until the next decode()."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self.model.vocab_size,))

    def forget(self, slot: int, keep: int = 0) -> bool:
        """Drops a slot's cells from position `keep` on. False where the memory of the model's kind
        cannot be cut there; dropping all of a slot never fails."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, keep or -1, -1))

    @property
    def copies(self) -> bool:
        """Whether the cells of one slot can be copied to another. Not where the model's kind remembers more
        or less than its tokens' keys and values."""
        model = self.model.handle
        state = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
        return not state and llama_cpp.llama_model_n_swa(model) == 0

    def copy(self, source: int, target: int) -> None:
        """Makes a slot's cells those of another slot; what it had is forgotten. The cells themselves are
        copied in the next decode()."""
        self.forget(target)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)


def cache_bytes_per_token(model: Weights) -> int:
    """What one token takes in the cache of an exact context."""
    return sum(layers_cell_bytes(model.header))


def _require_memory(model: Weights, cells: int) -> None:
    """Raises ModelUnusable for a cache larger than the machine's memory: the system would grant it, and end
    the process when it is filled."""
    needed = cells * cache_bytes_per_token(model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        sizes = f"{needed / GIGABYTE:.0f} GB for {cells} tokens, the machine has {memory / GIGABYTE:.0f} GB"
        raise ModelUnusable(f"the cache of the model {model.path} needs {sizes}")


def _parameters(slots: int, context_tokens: int, batch_tokens: int, threads: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = slots * context_tokens
    params.n_batch = params.n_ubatch = batch_tokens
    params.n_seq_max = slots
    # The default reserves logits for every token of a batch: 300 MB with a vocabulary of 150,000.
    params.n_outputs_max = slots
    params.n_threads = params.n_threads_batch = threads
    # Every slot has cells of its own. In a shared pool the order of a sequence's cells, and so the order of
    # its sums, would depend on when others came and went.
    params.kv_unified = False
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
    return params
