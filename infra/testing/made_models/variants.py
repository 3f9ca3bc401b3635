"""Variants of a model file, written by gguf-py: other layers, other tensors, other metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from gguf.scripts.gguf_new_metadata import copy_with_new_metadata

from infra.demo_models.family import FOLDER
from infra.training.export_fixture import FIXTURES

DEMO_MODELS = ("llama", "qwen", "phi", "gemma")
BLOCK_BYTES, BLOCK = 34, 32


def demo_model(name: str) -> Path:
    """The file of one of the demo models."""
    return FOLDER / f"choir-{name}.gguf"


def fixture_model(architecture: str) -> Path:
    """The file of a model of two layers, not quantised."""
    return FIXTURES / f"{architecture}.gguf"


def write_variant(
    model: Path,
    path: Path,
    *,
    layers: Sequence[int] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> Path:
    """A copy of a model with the given `layers` of it, in that order, and with further metadata (numbers, or
    a list of one for each layer) and tensors (F32, or bytes of Q8_0)."""
    reader = gguf.GGUFReader(model)
    architecture = reader.fields["general.architecture"].contents()
    count = reader.fields[f"{architecture}.block_count"].contents()
    layers = range(count) if layers is None else layers
    changed = {"block_count": len(layers), **(metadata or {})}
    writer = gguf.GGUFWriter(path, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if key.removeprefix(f"{architecture}.") not in changed:
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1])
    for key, value in changed.items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    blocks = [f"blk.{layer}." for layer in range(count)]
    for tensor in reader.tensors:
        if not tensor.name.startswith(tuple(blocks)):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for index, layer in enumerate(layers):
        for tensor in reader.tensors:
            if tensor.name.startswith(blocks[layer]):
                name = tensor.name.replace(blocks[layer], f"blk.{index}.")
                writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, data in (tensors or {}).items():
        writer.add_tensor(
            name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0 if data.dtype == np.uint8 else None
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def split_model(model: Path, path: Path, tensors: int = 8) -> list[Path]:
    """The same model in parts of so many tensors beside `path`, in their order."""
    architecture = gguf.GGUFReader(model).fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors)
    copy_with_new_metadata(gguf.GGUFReader(model), writer, {}, [])
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))


def quantised(model: Path, name: str) -> Path:
    """A model as llama.cpp quantises it."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.allow_requantize = True
    params.nthread = 1
    path = model.with_name(f"{model.stem}-{name}.gguf")
    assert llama_cpp.llama_model_quantize(str(model).encode(), str(path).encode(), params) == 0
    return path


def random_q8_0(rows: int, columns: int) -> np.ndarray[Any, Any]:
    """A matrix of small random numbers as Q8_0 blocks."""
    numbers = np.random.default_rng(3).normal(0, 0.05, (rows, columns)).astype(np.float32)
    blocks: np.ndarray[Any, Any] = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
    return blocks
