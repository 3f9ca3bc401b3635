"""Models of every architecture that can be cut: few layers, narrow, random weights, and all tensors and keys
that llama.cpp asks for, in its shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import log2, prod, sqrt
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

Array = np.ndarray[Any, Any]
Value = int | float | str | bool | list[int] | list[float]

WINDOW = 8
OF_NO_ARCHITECTURE = "xielu."
"""How keys begin that have no architecture before them."""
BLOCK = 32
QKV, GATED, PLAIN = "attn_q attn_k attn_v attn_output", "ffn_gate ffn_up ffn_down", "ffn_up ffn_down"
LLAMA = f"attn_norm {QKV} ffn_norm {GATED}"
EXPERTS = "ffn_gate_inp ffn_gate_exps ffn_up_exps ffn_down_exps"
SHARED_EXPERTS = "ffn_gate_shexp ffn_up_shexp ffn_down_shexp"
NEXTN = "nextn.eh_proj=2w,w nextn.enorm=w nextn.hnorm=w"
MLA = (
    "attn_norm attn_q_a=w,r attn_q_a_norm=r attn_q_b=r,c attn_kv_a_mqa=w,a attn_kv_a_norm=l attn_k_b=h,l,n "
    "attn_v_b=l,y,n attn_output=z,w ffn_norm"
)
# How many numbers and bytes a block has, and the scale that makes random ones about as large as one.
BLOCKS = {
    GGMLQuantizationType.Q8_0: (BLOCK, 34, sqrt(3) / 127),
    GGMLQuantizationType.MXFP4: (BLOCK, 17, 1 / 3),
    GGMLQuantizationType.IQ1_S: (256, 50, 1 / 8),
    GGMLQuantizationType.IQ2_XXS: (256, 66, 1 / 40),
    GGMLQuantizationType.IQ2_XS: (256, 74, 1 / 40),
    GGMLQuantizationType.IQ2_S: (256, 82, 1 / 40),
    GGMLQuantizationType.IQ3_XXS: (256, 98, 1 / 80),
}
# Dimensions in GGUF's order. w: width, q, k: queries and keys of all heads, h: of one, n: heads, f: of the
# network, x: of an expert, s: of shared ones, e: experts, v: vocabulary. Of MLA r, l: low ranks, c: queries,
# a: joint keys, b: keys and values of all heads, y: a head's values, z: those of all heads.
SHAPES = {
    "attn_q": "w,q", "attn_k": "w,k", "attn_v": "w,k", "attn_output": "q,w", "attn_qkv": "w,qkk",
    "attn_q_norm": "h", "attn_k_norm": "h", "attn_sinks": "n",
    "ffn_gate": "w,f", "ffn_up": "w,f", "ffn_down": "f,w",
    "ffn_gate_inp": "w,e", "ffn_gate_exps": "w,x,e", "ffn_up_exps": "w,x,e", "ffn_down_exps": "x,w,e",
    "ffn_gate_shexp": "w,s", "ffn_up_shexp": "w,s", "ffn_down_shexp": "s,w", "ffn_gate_inp_shexp": "w",
    "output": "w,v", "token_embd": "w,v",
    "rope_factors_long": "h/2", "rope_factors_short": "h/2", "rope_freqs": "h/2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a model is. `shared` 0: shared experts are as wide as one `expert`. The last four are of MLA,
    where `head` is the part of a head's keys that has no positions."""

    width: int = 64
    heads: int = 2
    head: int = 32
    key_heads: int = 1
    network: int = 96
    expert: int = 32
    experts: int = 4
    vocabulary: int = 96
    shared: int = 0
    query_rank: int = BLOCK
    key_rank: int = 2 * BLOCK
    positions: int = BLOCK
    values: int = BLOCK

    def size(self, symbol: str) -> int:
        """The number that a symbol of SHAPES stands for."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        return {
            "w": self.width, "2w": 2 * self.width, "q": queries, "k": keys, "qkk": queries + 2 * keys,
            "h": self.head, "h/2": self.head // 2, "n": self.heads, "f": self.network, "2f": 2 * self.network,
            "x": self.expert, "s": self.shared or self.expert, "e": self.experts, "v": self.vocabulary,
            "r": self.query_rank, "l": self.key_rank, "c": self.heads * (self.head + self.positions),
            "a": self.key_rank + self.positions, "b": self.heads * (self.head + self.values),
            "y": self.values, "z": self.heads * self.values,
        }[symbol]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """An architecture: the tensors of a layer (name, with "=" its dimensions, with "+" a bias too) and those
    beside the layers, and keys. The first `dense` layers have the tensors of `dense_layer`, and with `every`
    all but the last of so many. After the `layers` there are `nextn` that predict further tokens. Experts are
    of a type of their own if it is named."""

    layer: str = LLAMA
    ends: str = ""
    keys: Mapping[str, Value] = field(default_factory=dict)
    layers: int = 5
    dense: int = 0
    every: int = 1
    dense_layer: str = ""
    nextn: int = 0
    shape: Shape = Shape()
    experts_as: GGMLQuantizationType | None = None

    def tensors(self) -> Iterator[tuple[str, str]]:
        """Every tensor's name, and the symbols of its dimensions."""
        for entry in ["token_embd", *(self.ends or "output_norm").split()]:
            yield from _named(entry, "")
        for layer in range(self.layers + self.nextn):
            is_dense = layer < self.dense or (layer + 1) % self.every
            entries = self.dense_layer if is_dense else self.layer
            if layer >= self.layers:
                entries += f" {NEXTN}"
            for entry in entries.split():
                yield from _named(entry, f"blk.{layer}.")


def _named(entry: str, prefix: str) -> Iterator[tuple[str, str]]:
    name, _, shape = entry.rstrip("+").partition("=")
    shape = shape or SHAPES.get(name, "w")
    if name == "exp_probs_b":
        yield f"{prefix}{name}.bias", "e"
        return
    yield f"{prefix}{name}.weight", shape
    if entry.endswith("+"):
        inputs, *outputs = shape.split(",")
        yield f"{prefix}{name}.bias", ",".join(outputs or [inputs])


def biased(names: str) -> str:
    """The names, each with a bias."""
    return " ".join(f"{name}+" for name in names.split())


_MOE: dict[str, Value] = {"expert_count": 4, "expert_used_count": 2}
_EXPERT: dict[str, Value] = {**_MOE, "expert_feed_forward_length": 32}
_SHARED: dict[str, Value] = {**_EXPERT, "expert_shared_count": 1, "expert_weights_scale": 1.5}
_WINDOW: dict[str, Value] = {"attention.sliding_window": WINDOW}
_SCALES: dict[str, Value] = {
    "logit_scale": 4.0, "residual_scale": 0.7, "embedding_scale": 3.0, "attention.scale": 0.2
}  # fmt: skip
_DEEPSEEK2: dict[str, Value] = {
    **_SHARED, "leading_dense_block_count": 2, "attention.q_lora_rank": 32, "attention.kv_lora_rank": 64,
    "attention.key_length": 96, "attention.value_length": 64, "attention.key_length_mla": 64,
    "attention.value_length_mla": 32, "rope.dimension_count": 32, "nextn_predict_layers": 1,
    "attention.head_count_kv": 1,
}  # fmt: skip
_WIDE_EXPERTS = Shape(expert=96)
_GEMMA2 = f"{LLAMA} post_attention_norm post_ffw_norm"
_DEEPSEEK_MOE = f"{EXPERTS} {SHARED_EXPERTS}"
_QK_NORMS = f"{LLAMA} attn_q_norm attn_k_norm"
_FUSED = "attn_norm attn_qkv attn_output attn_q_norm attn_k_norm ffn_norm"
_GATING: dict[str, Value] = {**_SHARED, "expert_gating_func": 2}
_XIELU: dict[str, Value] = {
    "xielu.alpha_n": [0.3, 0.5, 0.7, 0.9, 1.1], "xielu.alpha_p": [1.2, 1.0, 0.8, 0.6, 0.4],
    "xielu.beta": [0.4, 0.5, 0.6, 0.7, 0.8], "xielu.eps": [-1e-6] * 5,
}  # fmt: skip
_GLM_MOE = f"attn_norm {QKV} attn_q_norm attn_k_norm post_attention_norm"
_BIASED_QKV = f"{biased('attn_q attn_k attn_v')} attn_output"

RECIPES: Mapping[str, Recipe] = {
    "apertus": Recipe(
        f"attn_norm {QKV} attn_q_norm attn_k_norm ffn_norm {PLAIN}", "output_norm output", _XIELU
    ),
    "arcee": Recipe(f"attn_norm {QKV} ffn_norm {PLAIN}"),
    "bailingmoe": Recipe(f"attn_norm {QKV} ffn_norm {_DEEPSEEK_MOE}", "output_norm output", _SHARED),
    "bailingmoe2": Recipe(
        f"{_FUSED} {_DEEPSEEK_MOE} exp_probs_b", "output_norm output",
        {**_GATING, "leading_dense_block_count": 1}, dense=1, dense_layer=f"{_FUSED} {GATED}",
    ),
    "chatglm": Recipe("attn_norm attn_qkv+ attn_output ffn_norm ffn_up=w,2f ffn_down"),
    "cohere2": Recipe(f"attn_norm {QKV} {GATED}", keys={**_WINDOW, "logit_scale": 0.25}, layers=8),
    "command-r": Recipe(f"attn_norm {QKV} {GATED}", keys={"logit_scale": 0.25}),
    "dbrx": Recipe(
        f"attn_norm attn_qkv attn_output attn_output_norm {EXPERTS}", "output_norm output",
        {**_MOE, "attention.clamp_kqv": 8.0}, shape=_WIDE_EXPERTS,
    ),
    "deepseek": Recipe(
        f"attn_norm {QKV} ffn_norm {_DEEPSEEK_MOE}",
        keys={**_SHARED, "leading_dense_block_count": 2}, dense=2, dense_layer=LLAMA,
    ),
    "deepseek2": Recipe(
        f"{MLA} {_DEEPSEEK_MOE} exp_probs_b", keys=_DEEPSEEK2, dense=2, dense_layer=f"{MLA} {GATED}", nextn=1
    ),
    "dots1": Recipe(
        f"attn_norm {QKV} attn_q_norm attn_k_norm ffn_norm {_DEEPSEEK_MOE} exp_probs_b", "output_norm output",
        {**_GATING, "leading_dense_block_count": 2}, dense=2, dense_layer=_QK_NORMS, shape=Shape(key_heads=2),
    ),
    "ernie4_5": Recipe(),
    "ernie4_5-moe": Recipe(
        f"attn_norm {QKV} ffn_norm {_DEEPSEEK_MOE} exp_probs_b",
        keys={
            **_EXPERT, "expert_shared_feed_forward_length": 32, "interleave_moe_layer_step": 1,
            "leading_dense_block_count": 2,
        },
        dense=2, dense_layer=LLAMA,
    ),
    "exaone": Recipe(),
    "exaone-moe": Recipe(
        f"attn_norm {QKV} attn_q_norm attn_k_norm ffn_norm {_DEEPSEEK_MOE} exp_probs_b", "output_norm output",
        {
            **_GATING, **_WINDOW, "expert_shared_feed_forward_length": 32, "leading_dense_block_count": 1,
        },
        layers=8, dense=1, dense_layer=_QK_NORMS,
    ),
    "exaone4": Recipe(f"{QKV} attn_q_norm attn_k_norm post_attention_norm {GATED} post_ffw_norm"),
    "falcon": Recipe(f"attn_norm+ attn_norm_2+ attn_qkv attn_output {PLAIN}", "output_norm+"),
    "gemma": Recipe(),
    "gemma2": Recipe(_GEMMA2, keys=_WINDOW, layers=6),
    "gemma3": Recipe(f"{_GEMMA2} attn_q_norm attn_k_norm", keys=_WINDOW, layers=6),
    "glm4": Recipe(
        f"attn_norm {_BIASED_QKV} post_attention_norm ffn_norm ffn_up=w,2f ffn_down post_ffw_norm"
    ),
    "glm4moe": Recipe(
        f"{_GLM_MOE} {_DEEPSEEK_MOE} exp_probs_b",
        keys={**_SHARED, "leading_dense_block_count": 1, "nextn_predict_layers": 1},
        dense=1, dense_layer=f"{_GLM_MOE} {GATED}", nextn=1,
    ),
    "gpt-oss": Recipe(
        f"attn_norm post_attention_norm {biased(QKV)} attn_sinks {biased(EXPERTS)}",
        "output_norm output", {**_EXPERT, **_WINDOW},
    ),
    "gptneox": Recipe(
        f"attn_norm+ attn_qkv+ attn_output+ ffn_norm+ {biased(PLAIN)}", "output_norm+ output",
        {"use_parallel_residual": True},
    ),
    "granite": Recipe(keys=_SCALES),
    "granitemoe": Recipe(
        f"attn_norm {QKV} ffn_norm {EXPERTS} {SHARED_EXPERTS}",
        keys={**_SCALES, **_MOE, "expert_shared_feed_forward_length": 96}, shape=_WIDE_EXPERTS,
    ),
    "hunyuan-dense": Recipe(_QK_NORMS),
    "hunyuan-moe": Recipe(
        f"attn_norm {QKV} attn_q_norm attn_k_norm ffn_norm {_DEEPSEEK_MOE}",
        keys={**_MOE, "expert_feed_forward_length": 96, "expert_shared_feed_forward_length": 96},
        shape=_WIDE_EXPERTS,
    ),
    "internlm2": Recipe(ends="output_norm output"),
    "llama": Recipe(ends="output_norm output"),
    "llama4": Recipe(
        f"attn_norm {QKV} ffn_norm {_DEEPSEEK_MOE}", keys={**_EXPERT, "interleave_moe_layer_step": 2},
        layers=12, every=2, dense_layer=LLAMA,
    ),
    "maincoder": Recipe(_QK_NORMS),
    "minicpm": Recipe(),
    "minimax-m2": Recipe(
        f"attn_norm {QKV} attn_q_norm=q attn_k_norm=k ffn_norm {EXPERTS} exp_probs_b", "output_norm output",
        {**_MOE, "expert_feed_forward_length": 96, "expert_gating_func": 2}, shape=_WIDE_EXPERTS,
    ),
    "mistral3": Recipe(keys={"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 8}),
    "mistral4": Recipe(
        f"{MLA} {_DEEPSEEK_MOE} exp_probs_b", keys=_DEEPSEEK2, dense=2, dense_layer=f"{MLA} {GATED}", nextn=1
    ),
    "nemotron": Recipe(f"attn_norm+ {QKV} ffn_norm+ {PLAIN}", "output_norm+ output"),
    "olmo": Recipe(f"{QKV} {GATED}", "output"),
    "olmo2": Recipe(
        f"{QKV} attn_q_norm=w attn_k_norm=k post_attention_norm {GATED} post_ffw_norm",
        "output_norm output", _WINDOW, layers=7,
    ),
    "olmoe": Recipe(
        f"attn_norm {QKV} attn_q_norm=w attn_k_norm=w ffn_norm {EXPERTS}", "output_norm output", _MOE,
        shape=Shape(expert=96, key_heads=2),
    ),
    "orion": Recipe(f"attn_norm+ {QKV} ffn_norm+ {GATED}", "output_norm+ output"),
    "pangu-embedded": Recipe(f"attn_norm {biased(QKV)} ffn_norm {GATED}"),
    "phi2": Recipe(f"attn_norm+ {biased(QKV)} {biased(PLAIN)}", "output_norm+ output+"),
    "phi3": Recipe(
        "attn_norm attn_qkv attn_output ffn_norm ffn_up=w,2f ffn_down",
        "output_norm output rope_factors_long rope_factors_short",
    ),
    "phimoe": Recipe(
        f"attn_norm+ {biased(QKV)} ffn_norm+ {EXPERTS}", "output_norm+ output+", _MOE, shape=_WIDE_EXPERTS
    ),
    "qwen": Recipe(
        f"attn_norm attn_qkv+ attn_output ffn_norm {GATED}", "output_norm output",
        {"feed_forward_length": 192}, shape=Shape(key_heads=2),
    ),
    "qwen2": Recipe(f"attn_norm {_BIASED_QKV} ffn_norm {GATED}"),
    "qwen2moe": Recipe(
        f"attn_norm {_BIASED_QKV} ffn_norm {EXPERTS} {SHARED_EXPERTS} ffn_gate_inp_shexp",
        "output_norm output", {**_EXPERT, "expert_shared_feed_forward_length": 32},
    ),
    "qwen3": Recipe(_QK_NORMS),
    "qwen3moe": Recipe(f"attn_norm {QKV} attn_q_norm attn_k_norm ffn_norm {EXPERTS}", keys=_EXPERT),
    "seed_oss": Recipe(f"attn_norm {_BIASED_QKV} post_attention_norm {GATED}"),
    "smollm3": Recipe(layers=12),
    "stablelm": Recipe(f"attn_norm+ {QKV} ffn_norm+ {GATED}", "output_norm+ output"),
    "starcoder2": Recipe(f"attn_norm+ {biased(QKV)} ffn_norm+ {biased(PLAIN)}", "output_norm+"),
    "xverse": Recipe(ends="output_norm output"),
}  # fmt: skip
_LITE = "attn_norm attn_q=w,c attn_kv_a_mqa=w,a attn_kv_a_norm=l attn_kv_b=l,b attn_output=z,w ffn_norm"
DEEPSEEK_LITE = Recipe(
    f"{_LITE} {_DEEPSEEK_MOE}",
    keys={
        **_SHARED,
        "leading_dense_block_count": 1,
        "attention.kv_lora_rank": 64,
        "attention.key_length": 64,
        "attention.value_length": 32,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 32,
    },
    layers=27,
    dense=1,
    dense_layer=f"{_LITE} {GATED}",
)
"""A deepseek2 that llama.cpp tells by its 27 layers."""


def write_random_model(
    path: Path,
    architecture: str,
    recipe: Recipe,
    *,
    matrices: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    split_tensors: int = 0,
) -> Path:
    """Writes a model with matrices of this type, F32 or one of BLOCKS, where their rows are whole blocks of
    it; in parts of `split_tensors` tensors if not 0."""
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split_tensors)
    for key, value in _keys(recipe).items():
        _add(writer, key if key.startswith(OF_NO_ARCHITECTURE) else f"{architecture}.{key}", value)
    writer.add_tokenizer_model("none")
    random = np.random.default_rng(len(architecture))
    for name, symbols in recipe.tensors():
        dimensions = [recipe.shape.size(symbol) for symbol in symbols.split(",")]
        is_matrix = len(dimensions) > 1 and not name.endswith((".bias", "ffn_gate_inp.weight"))
        kind = recipe.experts_as if recipe.experts_as and "_exps" in name else matrices
        if is_matrix and kind in BLOCKS and dimensions[0] % BLOCKS[kind][0] == 0:
            writer.add_tensor(name, _blocks(dimensions, kind, random), raw_dtype=kind)
        else:
            writer.add_tensor(name, _weights(name, dimensions, random))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _keys(recipe: Recipe) -> dict[str, Value]:
    shape = recipe.shape
    return {
        "vocab_size": shape.vocabulary,
        "context_length": 4096,
        "embedding_length": shape.width,
        "block_count": recipe.layers + recipe.nextn,
        "feed_forward_length": shape.network,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.key_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **recipe.keys,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _weights(name: str, dimensions: list[int], random: np.random.Generator) -> Array:
    """Random numbers that keep a token's hidden state at about the same size from layer to layer."""
    numbers = random.standard_normal(prod(dimensions), dtype=np.float32).reshape(dimensions[::-1])
    if re.search(r"norm[^.]*\.weight|rope_f", name):
        return 1 + numbers / 8
    return numbers / 8 if len(dimensions) == 1 else numbers / np.float32(sqrt(dimensions[0]))


def _blocks(dimensions: list[int], kind: GGMLQuantizationType, random: np.random.Generator) -> Array:
    """The same as blocks of a type: a scale, in half precision but for MXFP4, and random bytes."""
    columns, *rows = dimensions
    length, nbytes, factor = BLOCKS[kind]
    blocks = random.integers(0, 256, (*rows[::-1], columns // length, nbytes), dtype=np.uint8)
    if kind is GGMLQuantizationType.MXFP4:
        blocks[..., 0] = 127 + round(log2(factor / sqrt(columns)))  # the exponent of a power of two
    else:
        blocks[..., :2] = np.array([factor / sqrt(columns)], dtype="<f2").view(np.uint8)
    return blocks.reshape(*rows[::-1], -1)
