"""What a model will take of memory when it is loaded, by what its file says."""

from __future__ import annotations

from dataclasses import dataclass

from services.engine.model.gguf.header import GgufHeader
from services.engine.model.memory.cells import head_size_of, layers_cell_bytes
from services.engine.model.memory.repacking import Repacking

CONTEXT_TOKENS_CAP = 4096
"""The room of a sequence where nobody says another one."""
BATCH_TOKENS = 512
"""The most that a step evaluates where nobody says otherwise."""
CELLS_PADDED_TO = 256
"""llama.cpp makes so many cells at a time for each sequence."""
TOKEN_BYTES = 500
"""A token of a vocabulary with its merges, as llama.cpp keeps it; measured with 150,000 of them."""
LEAST_WORKING_BYTES = 24_000_000
"""Threads, samplers, templates, and what is counted nowhere else."""
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model takes: its weights as its file has them, copies of these in a form of the processor's own,
    the cells of its sequences, and what steps compute in, its vocabulary with that."""

    weights_bytes: int
    copies_bytes: int
    cache_bytes: int
    working_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.copies_bytes + self.cache_bytes + self.working_bytes


def room_of(trained_context_tokens: int, context_tokens: int | None) -> int:
    """The tokens that a sequence has room for: what is wanted, and never more than the model was made for."""
    return min(trained_context_tokens, context_tokens or CONTEXT_TOKENS_CAP)


def room_in(header: GgufHeader, context_tokens: int | None) -> int:
    """The same for a model that is not loaded."""
    trained = header.integer(f"{header.text('general.architecture')}.context_length")
    return room_of(trained or CONTEXT_TOKENS_CAP, context_tokens)


def layers_in(header: GgufHeader) -> int:
    """How many layers a model has, by its file; 0 where that does not say."""
    return header.integer(f"{header.text('general.architecture')}.block_count") or 0


def memory_need(
    header: GgufHeader, size_bytes: int, slots: int, context_tokens: int | None, *, exact: bool = True
) -> MemoryNeed:
    """What a model in files of `size_bytes` takes with so many sequences; `exact` as in a Context."""
    room = room_in(header, context_tokens)
    cells = slots * -(-room // CELLS_PADDED_TO) * CELLS_PADDED_TO
    tokens = header.array("tokenizer.ggml.tokens")
    vocabulary = tokens.count if tokens is not None else 0
    batch_tokens = max(min(BATCH_TOKENS, room), slots)
    working = LEAST_WORKING_BYTES + vocabulary * (TOKEN_BYTES + slots * FLOAT_BYTES)
    return MemoryNeed(
        weights_bytes=size_bytes,
        copies_bytes=Repacking(header).copies_bytes,
        cache_bytes=cells * sum(layers_cell_bytes(header, exact=exact)),
        working_bytes=working + batch_tokens * FLOAT_BYTES * _numbers_of_a_row(header),
    )


def _numbers_of_a_row(header: GgufHeader) -> int:
    """How many numbers llama.cpp's graph holds at a time for one token of a batch, at most. Fitted to what it
    reserves for the published shapes of the tests: it is never less, and rarely twice as much."""
    name = header.text("general.architecture")
    width = header.integer(f"{name}.embedding_length") or 0
    queries = (header.integer(f"{name}.attention.head_count") or 0) * head_size_of(header)
    used = header.integer(f"{name}.expert_used_count") or 0
    experts = used * (header.integer(f"{name}.expert_feed_forward_length") or _network(header))
    dense = 0 if used and not header.integer(f"{name}.leading_dense_block_count") else _network(header)
    return 3 * max(dense, experts) + used * width + 6 * max(width, queries)


def _network(header: GgufHeader) -> int:
    """How wide the network of a layer is; of the widest one, where layers differ."""
    key = f"{header.text('general.architecture')}.feed_forward_length"
    listed = header.array(key)
    if listed is not None:
        return max((int(number) for number in listed.numbers), default=0)
    return header.integer(key) or 0


def gpu_part(need_bytes: int, layers: int, gpu_layers: int) -> int:
    """What of it lies on GPUs if `gpu_layers` of its `layers` go there, -1 standing for all; the rest is in
    the host's memory."""
    share = gpu_layers / layers if 0 <= gpu_layers < layers else 1.0
    return int(need_bytes * share) if gpu_layers else 0
