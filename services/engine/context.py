"""A llama.cpp context: the KV cache of all slots, and the decoding of batches."""

from __future__ import annotations

import llama_cpp
import numpy as np
import numpy.typing as npt

from schemas.errors import ModelUnusable
from services.engine.batch import Batch
from services.engine.model import Model

Logits = npt.NDArray[np.float32]

DECODED = 0
NO_KV_SPACE = 1


class Context:
    """The state of `slots` sequences of up to `context_tokens` each. Only one thread may use it."""

    def __init__(
        self, model: Model, *, slots: int, context_tokens: int, batch_tokens: int, threads: int
    ) -> None:
        """Raises ModelUnusable where llama.cpp has no memory for it."""
        self.model = model
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = slots * context_tokens
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = slots
        # The default reserves logits for every token of a batch: 300 MB with a vocabulary of 150,000.
        params.n_outputs_max = slots
        params.n_threads = params.n_threads_batch = threads
        # One pool of cells for all slots: separate pools must be decoded in runs of neighbouring slots, so a
        # batch falls apart as soon as one in the middle is free. See "Choices" in README.md.
        params.kv_unified = True
        # Without flash attention the logits of a sequence change with the number of cells that others use.
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            size = f"{slots} sequences of {context_tokens} tokens"
            raise ModelUnusable(f"llama.cpp cannot make room for {size} of the model {model.path}")
        self._memory = llama_cpp.llama_get_memory(self.handle)

    def close(self) -> None:
        """Frees the context; nothing else may be called afterwards."""
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None

    def decode(self, batch: Batch) -> int:
        """Evaluates a batch; llama_decode's status: 0 done, 1 no KV space, else a failure."""
        return int(llama_cpp.llama_decode(self.handle, batch.filled()))

    def logits(self, row: int) -> Logits:
        """The logits of a row of the last batch, shape (vocabulary,), valid until the next decode()."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self.model.vocab_size,))

    def forget(self, slot: int, keep: int = 0) -> bool:
        """Drops a slot's cells from position `keep` on. False where the memory of the model's kind
        cannot be cut there; dropping all of a slot never fails."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, keep or -1, -1))
