"""The description of a model and of its engine."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import llama_cpp

from services.engine.model.gguf.split_files import size_of
from services.engine.model.model import Model

DESCRIPTION_BYTES = 256


@dataclass(frozen=True)
class ModelInfo:
    """A loaded model. `size_bytes` is that of its file, or of all its parts; `quantisation` is how most of
    its weights are stored ("Q8_0"), if the file says so; `context_tokens` is the room of one sequence."""

    path: Path
    name: str
    architecture: str
    description: str
    parameters: int
    size_bytes: int
    quantisation: str | None
    context_tokens: int
    trained_context_tokens: int
    layers: int
    vocab_size: int
    has_chat_template: bool


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The state of an engine at one moment, and totals since it was loaded.

    `decode_tokens_per_s` is over the last steps that only generated, 0 before the first. `threads` are those
    of the latest step.
    """

    active: int
    waiting: int
    slots: int
    kv_cells_used: int
    kv_cells: int
    decode_tokens_per_s: float
    prompt_tokens: int
    prefix_tokens_reused: int
    generated_tokens: int
    threads: int


def describe(model: Model, context_tokens: int) -> ModelInfo:
    """The ModelInfo of a model whose sequences get `context_tokens` each."""
    header = model.header
    return ModelInfo(
        path=model.path,
        name=header.text("general.name") or model.path.stem,
        architecture=header.text("general.architecture") or "",
        description=_description(model),
        parameters=model.parameters,
        size_bytes=size_of(model.path),
        quantisation=header.quantisation,
        context_tokens=context_tokens,
        trained_context_tokens=model.trained_context_tokens,
        layers=model.layers,
        vocab_size=model.vocab_size,
        has_chat_template=header.text("tokenizer.chat_template") is not None,
    )


def _description(model: Model) -> str:
    buffer = ctypes.create_string_buffer(DESCRIPTION_BYTES)
    llama_cpp.llama_model_desc(model.handle, buffer, DESCRIPTION_BYTES)
    return buffer.value.decode("utf-8", errors="replace")
