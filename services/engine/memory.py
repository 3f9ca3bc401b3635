"""What a model will take of memory when it is loaded, by what its file says."""

from __future__ import annotations

from services.engine.model.gguf.header import GgufHeader

CONTEXT_TOKENS_CAP = 4096
"""The room of a sequence where nobody says another one."""
WORKING_BYTES = 64_000_000
"""What its steps compute in, and its vocabulary."""


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


def loaded_bytes(header: GgufHeader, size_bytes: int, slots: int, context_tokens: int | None) -> int:
    """The weights of a file of `size_bytes`, the cache of `slots` sequences, and what steps compute in."""
    from services.engine.decode.context import cell_bytes  # llama.cpp, which an agent of servers never needs

    layers = layers_in(header)
    cells = slots * room_in(header, context_tokens)
    return size_bytes + layers * cell_bytes(header) * cells + WORKING_BYTES


def gpu_part(need_bytes: int, layers: int, gpu_layers: int) -> int:
    """What of it lies on GPUs if `gpu_layers` of its `layers` go there, -1 standing for all; the rest is in
    the host's memory."""
    share = gpu_layers / layers if 0 <= gpu_layers < layers else 1.0
    return int(need_bytes * share) if gpu_layers else 0
