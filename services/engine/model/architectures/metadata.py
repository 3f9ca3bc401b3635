"""What a slice's metadata says otherwise than the model's: all that llama.cpp would take from the number of
layers or from their indices, and that is not the same in the slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from services.engine.model.architectures.table import ARCHITECTURES, WINDOW_PATTERN, trunk_layers, windows_of
from services.engine.model.gguf.header import GgufFault, GgufHeader, MetadataArray
from services.engine.model.gguf.tables import ValueType
from services.engine.model.gguf.writer import Entry

# What llama.cpp reads as one number for all layers or an array of one for each.
PER_LAYER_KEYS = (
    "attention.head_count",
    "attention.head_count_kv",
    "attention.sliding_window_pattern",
    "expert_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
    "swiglu_clamp_exp",
    "swiglu_clamp_shexp",
)
PER_LAYER_KEYS_OF_NO_ARCHITECTURE = ("xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps")
WHOLE_ARRAYS = ("rope.dimension_sections", "classifier.output_labels")

# DeepSeek's ways to weigh experts, as llama.cpp numbers them, and what it tells the models by.
SOFTMAX, SIGMOID = 1, 2
LITE_LAYERS, KANANA, KANANA_VOCABULARY = (26, 27), 48, 128_256
GLM_LITE_LAYERS, GLM_VOCABULARY = (47, 48), 154_880

Number = int | float


def changed_entries(header: GgufHeader, layers: range) -> dict[str, Entry]:
    """The entries that a slice with these layers has in the place of the model's, or beside them, by their
    keys. Raises GgufFault for an array that is not understood."""
    name = header.text("general.architecture") or ""
    numbers = _numbers(header, layers)
    for key, value in header.metadata.items():
        plain = key.removeprefix(f"{name}.")
        if plain != key and isinstance(value, MetadataArray) and plain not in PER_LAYER_KEYS + WHOLE_ARRAYS:
            raise GgufFault(f"it is not known whether {key} has a number for each layer")
    entries = {f"{name}.{key}": _number(f"{name}.{key}", number) for key, number in numbers.items()}
    for key in (*(f"{name}.{plain}" for plain in PER_LAYER_KEYS), *PER_LAYER_KEYS_OF_NO_ARCHITECTURE):
        array = header.array(key)
        if array is not None:
            entries[key] = _layers_of(key, array, header, layers)
    heads = header.array(f"{name}.attention.head_count")
    if heads is not None:
        entries |= _head_sizes(header, heads)
    windows = windows_of(header)
    if windows:
        key = f"{name}.{WINDOW_PATTERN}"
        entries[key] = Entry(key, ValueType.ARRAY, windows[layers.start : layers.stop], ValueType.BOOL)
    return entries


def _numbers(header: GgufHeader, layers: range) -> dict[str, Number]:
    name = header.text("general.architecture") or ""
    changed: dict[str, Number] = {"block_count": len(layers)}
    dense = header.integer(f"{name}.leading_dense_block_count")
    if dense is not None:
        changed["leading_dense_block_count"] = min(max(dense - layers.start, 0), len(layers))
    if f"{name}.nextn_predict_layers" in header.metadata:
        changed["nextn_predict_layers"] = 0
    if ARCHITECTURES[name].scales_embeddings and layers.start:
        changed["embedding_scale"] = 0.0
    return {**changed, **STATED.get(name, _nothing)(header)}


def _minicpm(header: GgufHeader) -> Mapping[str, Number]:
    """Its residual scale, where the file leaves it to the number of layers; in single precision."""
    if "minicpm.residual_scale" in header.metadata:
        return {}
    return {"residual_scale": float(np.float32(1.4) / np.sqrt(np.float32(trunk_layers(header))))}


def _deepseek2(header: GgufHeader) -> Mapping[str, Number]:
    """Whether queries have a low rank, and how experts are weighed where the file does not say so."""
    name, count, vocabulary = header.text("general.architecture"), trunk_layers(header), _vocabulary(header)
    stated: dict[str, Number] = {}
    if count in LITE_LAYERS or (count, vocabulary) == (KANANA, KANANA_VOCABULARY):
        stated["attention.q_lora_rank"] = 0
    if not header.integer(f"{name}.expert_gating_func"):
        is_glm = count in GLM_LITE_LAYERS and vocabulary == GLM_VOCABULARY
        stated["expert_gating_func"] = SIGMOID if is_glm else SOFTMAX
    return stated


def _nothing(_header: GgufHeader) -> Mapping[str, Number]:
    return {}


STATED: Mapping[str, Callable[[GgufHeader], Mapping[str, Number]]] = {
    "deepseek2": _deepseek2,
    "minicpm": _minicpm,
    "mistral4": _deepseek2,
}
"""What llama.cpp derives from the number of layers, by architecture."""


def _vocabulary(header: GgufHeader) -> int:
    tokens = header.array("tokenizer.ggml.tokens")
    stated = header.integer(f"{header.text('general.architecture')}.vocab_size")
    return stated or (tokens.count if tokens else 0)


def _number(key: str, number: Number) -> Entry:
    return Entry(key, ValueType.UINT32 if isinstance(number, int) else ValueType.FLOAT32, number)


def _layers_of(key: str, array: MetadataArray, header: GgufHeader, layers: range) -> Entry:
    count = trunk_layers(header)
    all_layers = header.integer(f"{header.text('general.architecture')}.block_count")
    if array.count != len(array.numbers) or array.count not in (count, all_layers):
        raise GgufFault(f"{key} is not an array of a number for each of {count} layers")
    return Entry(key, ValueType.ARRAY, array.numbers[layers.start : layers.stop], array.item_type)


def _head_sizes(header: GgufHeader, heads: MetadataArray) -> dict[str, Entry]:
    """The sizes of keys and values, which llama.cpp takes from the first layer's number of heads."""
    name = header.text("general.architecture")
    first = next(iter(heads.numbers), None)
    width = header.integer(f"{name}.embedding_length") or 0
    keys = [f"{name}.attention.{part}_length" for part in ("key", "value")]
    missing = [key for key in keys if key not in header.metadata]
    if not missing:
        return {}
    if not isinstance(first, int) or first < 1:
        raise GgufFault(f"{name}.attention.head_count says {first!r} of the first layer")
    return {key: _number(key, width // first) for key in missing}
