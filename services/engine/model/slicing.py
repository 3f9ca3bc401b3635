"""A slice of a model: a GGUF file of its own with a contiguous range of the layers, for a stage of a
pipeline.

Its layers are numbered from 0 and its tensors are those of the source, byte for byte. llama.cpp loads it
like any model and, as it insists on embeddings, a final norm and an output matrix, finds these:

- first slice: the embeddings and the vocabulary; the output matrix, never used, is tied to the embeddings.
- middle slice: no vocabulary, and embeddings of a single row.
- last slice: the vocabulary and the output matrix. Where the model has one that is not tied to the
  embeddings it stands in their place, since a last slice looks no token up: so both need not be in memory.

Where a slice comes from stands in its metadata under `choir.slice.`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ModelUnusable
from services.engine.model.cuts import check_layers, layer_count
from services.engine.model.gguf_check import check_model, tensor_nbytes
from services.engine.model.gguf_header import (
    SCALARS,
    STRING_TYPE,
    ByteSource,
    FileSource,
    GgufFault,
    GgufHeader,
    MetadataArray,
    TensorInfo,
)
from services.engine.model.gguf_writer import (
    Entry,
    TensorCopy,
    array_entry,
    read_exactly,
    scalar_entry,
    write_gguf,
)

SLICE_PREFIX = "choir.slice."
U32_TYPE = 4
LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(.+)")
EMBEDDINGS, OUTPUT, OUTPUT_BIAS = "token_embd.weight", "output.weight", "output.bias"
SHARED_TENSORS = {
    "output_norm.weight",
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
}
# What llama.cpp reads as one number for all layers or an array of one for each.
PER_LAYER_KEYS = (
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.sliding_window_pattern",
    "expert_used_count",
)
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SliceOrigin:
    """Where a slice comes from: layers `first_layer` to `end_layer` - 1 of the `source_layers` of the model
    whose file has the checksum `source_sha256`. Stages fit together if the last two are the same."""

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


def slice_file(model: Path, layers: range, path: Path) -> SliceOrigin:
    """write_slice() of a file that is at hand, whose checksum is computed."""
    try:
        with model.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with FileSource(model) as source:
            return write_slice(source, layers, path, source_sha256=sha256)
    except OSError as error:
        raise ModelUnusable(f"the model file {model} cannot be read: {error.strerror}") from error


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
    architecture = header.text("general.architecture")
    layer_keys = {f"{architecture}.{key}" for key in PER_LAYER_KEYS}
    replaced = {f"{architecture}.block_count": origin.end_layer - origin.first_layer}
    with_vocabulary = origin.is_first or origin.is_last
    if not with_vocabulary:
        replaced[f"{architecture}.vocab_size"] = 1
    for key, value in header.metadata.items():
        if key in replaced or (key.startswith("tokenizer.") and not with_vocabulary):
            continue
        if not isinstance(value, MetadataArray):
            yield scalar_entry(key, header.value_types[key], value)
        elif key in layer_keys:
            yield _layers_of_array(key, value, source, origin)
        else:
            yield array_entry(
                key, value.item_type, value.count, read_exactly(source, value.offset, value.nbytes)
            )
    for key, number in replaced.items():
        yield scalar_entry(key, U32_TYPE, number)
    if not with_vocabulary:
        yield scalar_entry("tokenizer.ggml.model", STRING_TYPE, "none")
    yield scalar_entry(f"{SLICE_PREFIX}source_sha256", STRING_TYPE, origin.source_sha256)
    yield scalar_entry(f"{SLICE_PREFIX}first_layer", U32_TYPE, origin.first_layer)
    yield scalar_entry(f"{SLICE_PREFIX}end_layer", U32_TYPE, origin.end_layer)
    yield scalar_entry(f"{SLICE_PREFIX}source_layers", U32_TYPE, origin.source_layers)


def _layers_of_array(key: str, array: MetadataArray, source: ByteSource, origin: SliceOrigin) -> Entry:
    if array.item_type not in SCALARS or array.count != origin.source_layers:
        raise GgufFault(f"{key} is not an array of a number for each of {origin.source_layers} layers")
    size = SCALARS[array.item_type].size
    count = origin.end_layer - origin.first_layer
    items = read_exactly(source, array.offset + origin.first_layer * size, count * size)
    return array_entry(key, array.item_type, count, items)


def _tensors(header: GgufHeader, origin: SliceOrigin) -> Iterator[TensorCopy]:
    untied = any(tensor.name == OUTPUT for tensor in header.tensors)
    for tensor in header.tensors:
        position = header.data_offset + tensor.offset
        nbytes = tensor_nbytes(tensor)
        name = _name_in_slice(tensor, origin, untied=untied)
        if name is not None:
            yield TensorCopy(name, tensor.dimensions, tensor.type_id, position, nbytes)
        elif tensor.name == EMBEDDINGS and not origin.is_last:
            rows = tensor.dimensions[1] if len(tensor.dimensions) > 1 else 1
            yield TensorCopy(EMBEDDINGS, (tensor.dimensions[0], 1), tensor.type_id, position, nbytes // rows)


def _name_in_slice(tensor: TensorInfo, origin: SliceOrigin, *, untied: bool) -> str | None:
    """What a tensor that the slice takes whole is called in it; None for one that it does not take whole."""
    in_layer = LAYER_TENSOR.fullmatch(tensor.name)
    if in_layer:
        layer = int(in_layer[1])
        if layer >= origin.source_layers:
            raise GgufFault(f"tensor {tensor.name!r} is of none of its {origin.source_layers} layers")
        inside = origin.first_layer <= layer < origin.end_layer
        return f"blk.{layer - origin.first_layer}.{in_layer[2]}" if inside else None
    if tensor.name in SHARED_TENSORS:
        return tensor.name
    match tensor.name:
        case "token_embd.weight":
            return EMBEDDINGS if origin.is_first or (origin.is_last and not untied) else None
        case "output.weight":
            alone = origin.is_last and not origin.is_first
            return EMBEDDINGS if alone else OUTPUT if origin.is_last else None
        case "output.bias":
            return OUTPUT_BIAS if origin.is_last else None
    raise GgufFault(f"tensor {tensor.name!r} belongs to no layer, and it is not known which slices need it")
