"""The cells of a model's cache: what keys and values of one token take, by what the file says."""

from __future__ import annotations

from services.engine.model.architectures.table import trunk_layers
from services.engine.model.gguf.header import GgufHeader

# ggml types of cached keys and values. With two different types llama.cpp's attention treats every token
# alike; with equal ones it has three algorithms, picks by the shape of the batch, and their sums differ in
# the last bits. See "Choices" in README.md.
F16 = 1
Q8_0 = 8
BF16 = 30
Q8_0_BLOCK = 32
CACHE_TYPE_BYTES = {F16: 2.0, Q8_0: 34 / Q8_0_BLOCK, BF16: 2.0}


def cache_types_of(header: GgufHeader, *, exact: bool = True) -> tuple[int, int]:
    """Types of keys and values: those that make attention `exact`, or equal ones where the architecture has
    no others, or nobody asks for it."""
    low_rank = header.integer(f"{header.text('general.architecture')}.attention.kv_lora_rank")
    if not exact or low_rank is not None:
        return F16, F16
    return (F16, BF16) if head_size_of(header) % Q8_0_BLOCK else (Q8_0, F16)


def cell_bytes(header: GgufHeader, *, exact: bool = True) -> int:
    """What keys and values of one token take in one layer; in the largest one, where layers differ."""
    return max(layers_cell_bytes(header, exact=exact), default=0)


def layers_cell_bytes(header: GgufHeader, *, exact: bool = True) -> list[int]:
    """The same for each layer that a token goes through."""
    architecture = header.text("general.architecture")
    of_keys, of_values = (CACHE_TYPE_BYTES[kind] for kind in cache_types_of(header, exact=exact))
    keys = head_size_of(header)
    values = header.integer(f"{architecture}.attention.value_length") or keys
    if header.integer(f"{architecture}.attention.key_length_mla") is not None:
        values = 0  # llama.cpp reads them from the keys, which have their low rank in them
    bytes_of_head = keys * of_keys + values * of_values
    return [round(heads * bytes_of_head) for heads in _key_heads(header)]


def _key_heads(header: GgufHeader) -> list[int]:
    """How many heads of keys each layer has."""
    architecture, layers = header.text("general.architecture"), trunk_layers(header)
    listed = header.array(f"{architecture}.attention.head_count_kv")
    if listed is not None and listed.numbers:
        return [int(number) for number in listed.numbers[:layers]]
    heads = header.integer(f"{architecture}.attention.head_count") or 1
    return [header.integer(f"{architecture}.attention.head_count_kv") or heads] * layers


def head_size_of(header: GgufHeader) -> int:
    """The length of a key; 1 where heads differ in size from layer to layer."""
    architecture = header.text("general.architecture")
    stated = header.integer(f"{architecture}.attention.key_length")
    width = header.integer(f"{architecture}.embedding_length")
    heads = header.integer(f"{architecture}.attention.head_count")
    return stated or (width // heads if width and heads else 1)
