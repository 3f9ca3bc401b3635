"""Checks a model file before it is handed to llama.cpp, which trusts what it is given.

llama.cpp calls a null pointer for a tensor of type F64, reads past an array of token types that is shorter
than the vocabulary, and aborts the process on several other faults. What is refused here never reaches it.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from schemas.errors import ModelUnusable
from services.engine.model.gguf.header import (
    INTEGER_TYPES,
    ByteSource,
    GgufFault,
    GgufHeader,
    TensorInfo,
    read_header,
)
from services.engine.model.gguf.split_files import JoinedSource, joined_header, model_source, part_headers
from services.engine.model.gguf.tables import BLOCK_SIZES, TensorType, ValueType

RUNNABLE = {
    *(TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0, TensorType.MXFP4),
    *(TensorType.Q4_0, TensorType.Q4_1, TensorType.Q5_0, TensorType.Q5_1, TensorType.TQ1_0, TensorType.TQ2_0),
    *(TensorType.Q2_K, TensorType.Q3_K, TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K),
    *(TensorType.IQ1_S, TensorType.IQ1_M, TensorType.IQ2_XXS, TensorType.IQ2_XS, TensorType.IQ2_S),
    *(TensorType.IQ3_XXS, TensorType.IQ3_S, TensorType.IQ4_NL, TensorType.IQ4_XS),
}
RUNNABLE_TYPES: dict[int, tuple[str, int, int]] = {
    kind.value: (kind.name, *BLOCK_SIZES[kind]) for kind in TensorType if kind in RUNNABLE
}
"""By a tensor's type: its name, how many numbers are in a block, and its bytes."""
REFUSED_TYPES = {kind.value: kind.name for kind in TensorType if kind not in RUNNABLE}
# llama.cpp's own limit; it aborts beyond.
MAX_LAYERS = 512
POSITIVE_INTEGERS = {"block_count": MAX_LAYERS, "embedding_length": 1 << 20, "context_length": 1 << 31}
MAX_VOCABULARY = 1 << 22


def check_model_file(path: Path) -> GgufHeader:
    """The header of a model file, or of a split model's first part, that llama.cpp can be given; raises
    ModelUnusable otherwise."""
    try:
        with model_source(path) as source:
            return check_model(source)
    except OSError as error:
        raise ModelUnusable(f"the model file {path} cannot be read: {error.strerror}") from error
    except GgufFault as fault:
        raise ModelUnusable(f"the model file {path} is not usable: {fault}") from fault


def check_model(source: ByteSource) -> GgufHeader:
    """The header of a model that llama.cpp can be given; raises GgufFault otherwise."""
    if isinstance(source, JoinedSource):
        return _check_parts(source)
    header = read_header(source)
    if (header.integer("split.count") or 1) > 1:
        raise GgufFault(
            "it is one part of a split model: all parts together are needed, under their own names"
        )
    _check_metadata(header, source)
    check_tensors(header, source.size)
    return header


def _check_parts(source: JoinedSource) -> GgufHeader:
    headers = part_headers(source)
    for header, part in zip(headers, source.parts, strict=True):
        check_tensors(header, part.size, may_be_empty=True)
    header = joined_header(headers, source)
    _check_metadata(header, source)
    _check_names(header)
    return header


def _check_metadata(header: GgufHeader, source: ByteSource) -> None:
    _check_architecture(header)
    _check_numbers(header)
    _check_vocabulary(header, source)


def tensor_nbytes(tensor: TensorInfo) -> int:
    """How many bytes the tensor takes in the file; raises GgufFault for a type that cannot be run."""
    if tensor.type_id not in RUNNABLE_TYPES:
        name = REFUSED_TYPES.get(tensor.type_id, "unknown")
        raise GgufFault(f"tensor {tensor.name!r} has type {name} ({tensor.type_id}), which cannot be run")
    name, block, block_bytes = RUNNABLE_TYPES[tensor.type_id]
    if tensor.dimensions[0] % block:
        raise GgufFault(f"rows of tensor {tensor.name!r} are not whole blocks of {block} ({name})")
    return tensor.elements // block * block_bytes


def _check_architecture(header: GgufHeader) -> None:
    architecture = header.text("general.architecture")
    if not architecture:
        raise GgufFault("its metadata has no general.architecture")
    for name, limit in POSITIVE_INTEGERS.items():
        value = header.integer(f"{architecture}.{name}")
        if value is None or not 0 < value <= limit:
            raise GgufFault(f"{architecture}.{name} is {value}, not a number from 1 to {limit}")


def _check_numbers(header: GgufHeader) -> None:
    """llama.cpp aborts on a norm's epsilon that is negative or no number."""
    for key, value in header.metadata.items():
        if isinstance(value, float) and (not isfinite(value) or (key.endswith("epsilon") and value < 0)):
            raise GgufFault(f"{key} is {value}")


def _check_vocabulary(header: GgufHeader, source: ByteSource) -> None:
    """Parallel arrays of the vocabulary have one length and the types that llama.cpp takes for granted, and
    no token is there twice."""
    tokens = header.array("tokenizer.ggml.tokens")
    if tokens is None:
        return
    if tokens.item_type != ValueType.STRING or not 0 < tokens.count <= MAX_VOCABULARY:
        raise GgufFault("tokenizer.ggml.tokens is not a list of strings of a sensible length")
    _check_parallel(header, "tokenizer.ggml.scores", tokens.count, frozenset({ValueType.FLOAT32}))
    _check_parallel(
        header, "tokenizer.ggml.token_type", tokens.count, frozenset({ValueType.UINT32, ValueType.INT32})
    )
    _check_parallel(header, "tokenizer.ggml.merges", None, frozenset({ValueType.STRING}))
    for key in header.metadata:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            _check_token_id(header, key, tokens.count)
    named = [token for token in tokens.read(source) if token]
    if len(set(named)) < len(named):
        raise GgufFault("a token of its vocabulary is there twice")


def _check_parallel(header: GgufHeader, key: str, count: int | None, types: frozenset[int]) -> None:
    if key not in header.metadata:
        return
    array = header.array(key)
    if array is None or array.item_type not in types or (count is not None and array.count != count):
        raise GgufFault(f"{key} does not fit tokenizer.ggml.tokens")


def _check_token_id(header: GgufHeader, key: str, vocabulary: int) -> None:
    value = header.integer(key)
    if header.value_types[key] not in INTEGER_TYPES or value is None or not 0 <= value < vocabulary:
        raise GgufFault(f"{key} is {value!r}, not a token of the vocabulary ({vocabulary})")


def check_tensors(header: GgufHeader, size: int, *, may_be_empty: bool = False) -> None:
    """Raises GgufFault unless the tensors of a file of `size` bytes have places of their own in it. A part of
    a split model `may_be_empty`: the first one sometimes has the metadata alone."""
    if header.tensors or not may_be_empty:
        _check_names(header)
    end = 0
    for tensor in sorted(header.tensors, key=lambda tensor: tensor.offset):
        _check_place(tensor, header, end, size)
        end = tensor.offset + tensor_nbytes(tensor)


def _check_names(header: GgufHeader) -> None:
    if not header.tensors:
        raise GgufFault("it holds no tensors")
    if len({tensor.name for tensor in header.tensors}) < len(header.tensors):
        raise GgufFault("two of its tensors have the same name")


def _check_place(tensor: TensorInfo, header: GgufHeader, previous_end: int, size: int) -> None:
    if tensor.offset % header.alignment:
        raise GgufFault(f"tensor {tensor.name!r} is not aligned to {header.alignment} bytes")
    if tensor.offset < previous_end:
        raise GgufFault(f"tensor {tensor.name!r} overlaps the one before it")
    missing = header.data_offset + tensor.offset + tensor_nbytes(tensor) - size
    if missing > 0:
        raise GgufFault(f"tensor {tensor.name!r} reaches {missing} bytes past the end: the file is truncated")
