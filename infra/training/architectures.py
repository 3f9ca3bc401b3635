"""Tiny configurations of four architectures, as transformers' own classes. Imports torch only when called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONTEXT_LENGTH = 1_024
ROPE_THETA = 10_000.0
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """The sizes of a model. Rows of weights must be whole Q8_0 blocks, so widths divide by 32."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 3
    head_width: int = 32
    feed_forward: int = 384
    window: int = 256


def llama(shape: Shape, vocabulary_size: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_shared(shape, vocabulary_size), head_dim=shape.head_width))


def qwen2(shape: Shape, vocabulary_size: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_shared(shape, vocabulary_size)))


def phi3(shape: Shape, vocabulary_size: int) -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    return Phi3ForCausalLM(
        Phi3Config(
            **_shared(shape, vocabulary_size),
            original_max_position_embeddings=CONTEXT_LENGTH,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
        )
    )


def gemma2(shape: Shape, vocabulary_size: int) -> Any:
    """Gemma2 multiplies embeddings by the root of the width: a width of 256 makes that exactly 16."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        **_shared(shape, vocabulary_size),
        head_dim=shape.head_width,
        query_pre_attn_scalar=shape.head_width,
        sliding_window=shape.window,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


ARCHITECTURES: dict[str, Callable[[Shape, int], Any]] = {
    "llama": llama,
    "qwen2": qwen2,
    "phi3": phi3,
    "gemma2": gemma2,
}

SHAPES: dict[str, Shape] = {
    "llama": Shape(),
    "qwen2": Shape(),
    "phi3": Shape(),
    "gemma2": Shape(width=256, heads=4, kv_heads=2, feed_forward=320),
}


def _shared(shape: Shape, vocabulary_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": CONTEXT_LENGTH,
        "rms_norm_eps": NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 4,
        "use_cache": False,
    }
