"""A slice of a model: a GGUF file of its own with a contiguous range of the layers, for a stage of a
pipeline.

Its layers are numbered from 0 and its tensors are those of the source, byte for byte. llama.cpp loads it
like any model and, as it insists on embeddings, a final norm and an output matrix, finds these:

- first slice: the embeddings and the vocabulary; the output matrix, never used, is tied to the embeddings.
- middle slice: no vocabulary, and embeddings of a single row.
- last slice: the vocabulary and the output matrix. Where the model has one that is not tied to the
  embeddings it stands in their place, since a last slice looks no token up: so both need not be in memory.

Where the architecture knows no tying, what is missing is zeros of the smallest type: a hole in the file, of
which nothing is read or fetched.

Where a slice comes from stands in its metadata under `choir.slice.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.errors import ModelUnusable
from services.engine.model.architectures.metadata import changed_entries
from services.engine.model.architectures.table import EMBEDDINGS, LAYER_TENSOR, OUTPUT, OUTPUT_BIAS
from services.engine.model.cuts import architecture_of, check_layers, layer_count
from services.engine.model.gguf.check import check_model, tensor_nbytes
from services.engine.model.gguf.header import ByteSource, GgufFault, GgufHeader, MetadataArray, TensorInfo
from services.engine.model.gguf.split_files import model_source, sha256_of
from services.engine.model.gguf.tables import ValueType
from services.engine.model.gguf.writer import Entry, TensorCopy, write_gguf

SLICE_PREFIX = "choir.slice."
END_TENSORS = frozenset({EMBEDDINGS, OUTPUT, OUTPUT_BIAS})
# IQ1_S, Q4_1 and F16, each with the length of its blocks.
HOLE_TYPES = ((19, 256), (3, 32), (1, 1))
SHARED_TENSORS = {
    "output_norm.bias",
    "output_norm.weight",
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
}
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SliceOrigin:
    """Where a slice comes from: layers `first_layer` to `end_layer` - 1 of the `source_layers` of the model
    whose file, or files one after another, have the checksum `source_sha256`. Stages fit together if the last
    two are the same."""

    source_sha256: str
    first_layer: int
    end_layer: int
    source_layers: int

    @property
    def is_first(self) -> bool:
        """Whether the slice takes tokens."""
        return self.first_layer == 0

    @property
    def is_last(self) -> bool:
        """Whether the slice gives logits."""
        return self.end_layer == self.source_layers

    @property
    def is_middle(self) -> bool:
        """Whether the slice takes hidden states and gives such."""
        return not (self.is_first or self.is_last)

    @property
    def is_whole(self) -> bool:
        """Whether the slice is all of the model."""
        return self.is_first and self.is_last


def slice_file(model: Path, layers: range, path: Path) -> SliceOrigin:
    """write_slice() of a file that is at hand, or of the split model whose first part it is; the checksum is
    computed."""
    try:
        sha256 = sha256_of(model)
        with model_source(model) as source:
            return write_slice(source, layers, path, source_sha256=sha256)
    except OSError as error:
        raise ModelUnusable(f"the model file {model} cannot be read: {error.strerror}") from error
    except GgufFault as fault:
        raise ModelUnusable(f"the model file {model} is not usable: {fault}") from fault


def write_slice(source: ByteSource, layers: range, path: Path, *, source_sha256: str) -> SliceOrigin:
    """Writes the slice with `layers` of a model to `path`, of which only the header and the tensors that it
    needs are read. The same source and layers give the same bytes.

    Raises InvalidRequest for layers that are no slice of the model, ModelUnusable for a model that is
    damaged or cannot be cut, and for a file that cannot be written; nothing is left at `path` then.
    """
    if not SHA256.fullmatch(source_sha256):
        raise ModelUnusable(f"{source_sha256!r} is not the SHA-256 of a model in hexadecimal")
    try:
        header = check_model(source)
        if slice_origin(header):
            raise GgufFault("it is a slice of a model already")
        check_layers(header, layers)
        origin = SliceOrigin(source_sha256, layers.start, layers.stop, layer_count(header))
        entries = list(_entries(header, source, origin))
        tensors = list(_tensors(header, origin))
        write_gguf(path, entries, tensors, source, alignment=header.alignment)
    except GgufFault as fault:
        raise ModelUnusable(f"the model cannot be sliced: {fault}") from fault
    except OSError as error:
        raise ModelUnusable(f"the slice {path} cannot be written: {error.strerror}") from error
    return origin


def slice_origin(header: GgufHeader) -> SliceOrigin | None:
    """What a slice says of its origin, None for a whole model; raises GgufFault where that makes no sense."""
    if not any(key.startswith(SLICE_PREFIX) for key in header.metadata):
        return None
    sha256 = header.text(f"{SLICE_PREFIX}source_sha256") or ""
    first, end, count = (
        header.integer(f"{SLICE_PREFIX}{name}") for name in ("first_layer", "end_layer", "source_layers")
    )
    if first is None or end is None or count is None or not SHA256.fullmatch(sha256):
        raise GgufFault(f"its entries under {SLICE_PREFIX} are incomplete")
    if not 0 <= first < end <= count or end - first != layer_count(header):
        raise GgufFault(f"it claims layers {first} to {end - 1} of {count} and has {layer_count(header)}")
    return SliceOrigin(sha256, first, end, count)


def _entries(header: GgufHeader, source: ByteSource, origin: SliceOrigin) -> Iterator[Entry]:
    layers = range(origin.first_layer, origin.end_layer)
    changed = {} if origin.is_whole else changed_entries(header, layers)
    vocabulary_size = f"{header.text('general.architecture')}.vocab_size"
    for key, value in header.metadata.items():
        if key in changed or (origin.is_middle and key.startswith(("tokenizer.", vocabulary_size))):
            continue
        if not isinstance(value, MetadataArray):
            yield Entry(key, header.value_types[key], value)
        elif value.count:  # the gguf package writes no empty array
            yield Entry(key, ValueType.ARRAY, value.read(source), value.item_type)
    yield from changed.values()
    if origin.is_middle:
        yield Entry(vocabulary_size, ValueType.UINT32, 1)
        yield Entry("tokenizer.ggml.model", ValueType.STRING, "none")
    yield Entry(f"{SLICE_PREFIX}source_sha256", ValueType.STRING, origin.source_sha256)
    yield Entry(f"{SLICE_PREFIX}first_layer", ValueType.UINT32, origin.first_layer)
    yield Entry(f"{SLICE_PREFIX}end_layer", ValueType.UINT32, origin.end_layer)
    yield Entry(f"{SLICE_PREFIX}source_layers", ValueType.UINT32, origin.source_layers)


def _tensors(header: GgufHeader, origin: SliceOrigin) -> Iterator[TensorCopy]:
    untied = any(tensor.name == OUTPUT for tensor in header.tensors)
    for tensor in header.tensors:
        in_layer = LAYER_TENSOR.fullmatch(tensor.name)
        if in_layer:
            copy = _of_a_layer(header, tensor, int(in_layer[1]), in_layer[2], origin)
        elif tensor.name in SHARED_TENSORS:
            copy = _copy(header, tensor, tensor.name)
        elif tensor.name in END_TENSORS:
            copy = _of_an_end(header, tensor, origin, untied=untied)
        else:
            reason = "belongs to no layer, and it is not known which slices need it"
            raise GgufFault(f"tensor {tensor.name!r} {reason}")
        if copy is not None:
            yield copy


def _of_a_layer(
    header: GgufHeader, tensor: TensorInfo, layer: int, rest: str, origin: SliceOrigin
) -> TensorCopy | None:
    """A tensor of a layer under its name in the slice; None where the slice has not that layer."""
    if layer >= (header.integer(f"{header.text('general.architecture')}.block_count") or 0):
        raise GgufFault(f"tensor {tensor.name!r} is of none of its {origin.source_layers} layers")
    if origin.is_whole:
        return _copy(header, tensor, tensor.name)
    if not origin.first_layer <= layer < origin.end_layer:
        return None
    return _copy(header, tensor, f"blk.{layer - origin.first_layer}.{rest}")


def _of_an_end(
    header: GgufHeader, tensor: TensorInfo, origin: SliceOrigin, *, untied: bool
) -> TensorCopy | None:
    """What a slice has of a tensor at the model's input or output; None for nothing. `untied`: the model has
    an output matrix of its own."""
    needed = architecture_of(header).needs_output
    is_input = tensor.name == EMBEDDINGS
    if origin.is_whole:
        return _copy(header, tensor, tensor.name)
    if origin.is_middle:
        return _first_row(header, tensor) if is_input or tensor.name in needed else None
    if is_input == origin.is_first:
        stands_in = tensor.name == OUTPUT and OUTPUT not in needed
        return _copy(header, tensor, EMBEDDINGS if stands_in else tensor.name)
    if tensor.name in needed or (is_input and OUTPUT in needed):
        return hole_for(tensor)
    return _copy(header, tensor, tensor.name) if is_input and not untied else None


def _copy(header: GgufHeader, tensor: TensorInfo, name: str) -> TensorCopy:
    position = header.data_offset + tensor.offset
    return TensorCopy(name, tensor.dimensions, tensor.type_id, position, tensor_nbytes(tensor))


def _first_row(header: GgufHeader, tensor: TensorInfo) -> TensorCopy:
    """One token's part of a tensor that has one for each of the vocabulary."""
    *row, tokens = tensor.dimensions
    nbytes = tensor_nbytes(tensor) // tokens
    position = header.data_offset + tensor.offset
    return TensorCopy(tensor.name, (*row, 1), tensor.type_id, position, nbytes)


def hole_for(tensor: TensorInfo) -> TensorCopy:
    """Zeros in the shape of a tensor that llama.cpp insists on and never computes with, in a type of few
    bytes that it leaves where they are instead of making copies of its own."""
    type_id = tensor.type_id
    if len(tensor.dimensions) > 1:
        type_id = next(kind for kind, block in HOLE_TYPES if tensor.dimensions[0] % block == 0)
    hole = replace(tensor, type_id=type_id)
    return TensorCopy(hole.name, hole.dimensions, type_id, None, tensor_nbytes(hole))
