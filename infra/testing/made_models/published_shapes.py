"""The shapes of published models: widths, heads, groups, experts, windows, positions and scales.

The layers are few, the vocabulary is short, and the weights are random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gguf import GGMLQuantizationType

from infra.testing.made_models.random_models import (
    DEEPSEEK_LITE,
    EXPERTS,
    LLAMA,
    PLAIN,
    RECIPES,
    Recipe,
    Shape,
    Value,
)

VOCABULARY = 4096
SHORT_WINDOW = 16
"""In the place of a window of thousands of tokens: the prompt is to be longer than that."""
_BUT_WINDOW = f"a window of {SHORT_WINDOW} tokens in the place of 4,096"
_NORM: dict[str, Value] = {"attention.layer_norm_rms_epsilon": 1e-6}
_LLAMA3 = {"rope.freq_base": 500_000.0}
_YARN: dict[str, Value] = {"rope.scaling.type": "yarn", "rope.scaling.original_context_length": 4096}


@dataclass(frozen=True, slots=True)
class Published:
    """A model whose shape was taken; `but` says what is otherwise, beside layers and vocabulary."""

    model: str
    architecture: str
    recipe: Recipe
    but: str = ""

    @property
    def heads(self) -> str:
        """Heads of queries and of keys, and how wide one is."""
        shape = self.recipe.shape
        if self.recipe.keys.get("attention.kv_lora_rank"):
            return f"{shape.heads} × {shape.head} + {shape.positions}, ranks {self._ranks}"
        return f"{shape.heads} / {shape.key_heads} × {shape.head}"

    @property
    def network(self) -> str:
        """How wide the network of a layer is, or its experts, and how many of them a token takes."""
        shape, keys = self.recipe.shape, self.recipe.keys
        if "expert_count" not in keys:
            return f"{shape.network:,}"
        return f"{keys['expert_used_count']} of {keys['expert_count']} × {shape.expert:,}"

    @property
    def _ranks(self) -> str:
        shape = self.recipe.shape
        if not self.recipe.keys["attention.q_lora_rank"]:
            return f"{shape.key_rank}"
        return f"{shape.query_rank} and {shape.key_rank}"

    @property
    def window(self) -> int:
        """The tokens of its sliding window, 0 if it has none."""
        window = self.recipe.keys.get("attention.sliding_window", 0)
        return window if isinstance(window, int) else 0


def _of(
    architecture: str,
    shape: Shape,
    keys: Mapping[str, Value] = {},
    *,
    layers: int = 3,
    ends: str | None = None,
    layer: str | None = None,
    like: Recipe | None = None,
    experts_as: GGMLQuantizationType | None = None,
) -> Recipe:
    recipe = like or RECIPES[architecture]
    return replace(
        recipe,
        shape=replace(shape, vocabulary=VOCABULARY),
        keys={**recipe.keys, **keys},
        layers=layers,
        ends=recipe.ends if ends is None else ends,
        layer=layer or recipe.layer,
        experts_as=experts_as,
    )


_FREQS = "output_norm rope_freqs"

PUBLISHED = (
    Published(
        "Llama 3.2 1B", "llama", _of("llama", Shape(2048, 32, 64, 8, 8192), _LLAMA3, ends=_FREQS)
    ),
    Published(
        "Mistral 7B v0.3", "llama",
        _of("llama", Shape(4096, 32, 128, 8, 14336), {"rope.freq_base": 1_000_000.0}),
    ),
    Published(
        "Ministral 3 3B", "mistral3",
        _of("mistral3", Shape(3072, 32, 128, 8, 9216), {
            **_YARN, "rope.freq_base": 1_000_000.0, "rope.scaling.factor": 16.0,
            "rope.scaling.original_context_length": 16_384, "attention.temperature_scale": 0.1,
        }),
    ),
    Published(
        "Qwen2.5 0.5B", "qwen2",
        _of("qwen2", Shape(896, 14, 64, 2, 4864), {**_NORM, "rope.freq_base": 1_000_000.0})
    ),
    Published(
        "Qwen1.5 MoE A2.7B", "qwen2moe",
        _of("qwen2moe", Shape(2048, 16, 128, 16, 5632, 1408, 15, shared=5632), {
            **_NORM, "expert_count": 15, "expert_used_count": 4, "expert_feed_forward_length": 1408,
            "expert_shared_feed_forward_length": 5632, "rope.freq_base": 1_000_000.0,
        }),
        "15 of 60 experts",
    ),
    Published(
        "Qwen3 0.6B", "qwen3",
        _of("qwen3", Shape(1024, 16, 128, 8, 3072), {**_NORM, "rope.freq_base": 1_000_000.0})
    ),
    Published(
        "Qwen3 30B A3B", "qwen3moe",
        _of("qwen3moe", Shape(2048, 32, 128, 4, 6144, 768, 32), {
            **_NORM, "expert_count": 32, "expert_used_count": 8, "expert_feed_forward_length": 768,
            "rope.freq_base": 1_000_000.0,
        }, ends="output_norm output"),
        "32 of 128 experts",
    ),
    Published("Gemma 2B", "gemma", _of("gemma", Shape(2048, 8, 256, 1, 16_384), _NORM)),
    Published(
        "Gemma 2 2B", "gemma2",
        _of("gemma2", Shape(2304, 8, 256, 4, 9216), {
            **_NORM, "attention.sliding_window": SHORT_WINDOW, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }, layers=5),
        _BUT_WINDOW,
    ),
    Published(
        "Gemma 3 1B", "gemma3",
        _of("gemma3", Shape(1152, 4, 256, 1, 6912), {
            **_NORM, "attention.sliding_window": 512, "rope.freq_base": 1_000_000.0
        }, layers=8),
    ),
    Published("Phi-2", "phi2", _of("phi2", Shape(2560, 32, 80, 32, 10_240), {"rope.dimension_count": 32})),
    Published(
        "Phi-3 mini 128k", "phi3",
        _of("phi3", Shape(3072, 32, 96, 32, 8192), {
            "rope.dimension_count": 96, "rope.scaling.original_context_length": 4096,
            "rope.scaling.attn_factor": 1.19,
        }),
    ),
    Published(
        "Granite 3.1 2B", "granite",
        _of("granite", Shape(2048, 32, 64, 8, 8192), {
            "embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0, "attention.scale": 0.015625,
            "rope.freq_base": 5_000_000.0,
        }),
    ),
    Published(
        "Granite 3.1 1B A400M", "granitemoe",
        _of("granitemoe", Shape(1024, 16, 64, 8, 512, 512, 32), {
            "embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 6.0, "attention.scale": 0.015625,
            "expert_count": 32, "expert_used_count": 8, "expert_shared_feed_forward_length": 0,
            "rope.freq_base": 1_500_000.0,
        }, layer=LLAMA.replace("ffn_gate ffn_up ffn_down", EXPERTS)),
    ),
    Published(
        "OLMo 2 1B", "olmo2",
        _of("olmo2", Shape(2048, 16, 128, 16, 8192), {**_NORM, **_LLAMA3, "attention.sliding_window": 0}),
    ),
    Published(
        "StarCoder2 3B", "starcoder2",
        _of("starcoder2", Shape(3072, 24, 128, 2, 12_288), {"rope.freq_base": 999_999.0})
    ),
    Published(
        "StableLM 2 1.6B", "stablelm",
        _of("stablelm", Shape(2048, 32, 64, 32, 5632), {"rope.dimension_count": 16},
            layer=RECIPES["stablelm"].layer.replace("attn_q attn_k attn_v", "attn_q+ attn_k+ attn_v+")),
    ),
    Published(
        "DeepSeek V2 Lite", "deepseek2",
        _of("deepseek2", Shape(
            2048, 16, 128, 16, 10_944, 1408, 16, shared=2816, key_rank=512, positions=64, values=128
        ), {
            **_NORM, **_YARN, "rope.scaling.factor": 40.0, "rope.scaling.yarn_log_multiplier": 0.0707,
            "attention.q_lora_rank": 0, "attention.kv_lora_rank": 512, "attention.key_length": 192,
            "attention.value_length": 128, "attention.head_count_kv": 16, "rope.dimension_count": 64,
            "expert_count": 16, "expert_used_count": 6, "expert_feed_forward_length": 1408,
            "expert_shared_count": 2, "expert_weights_scale": 1.0,
        }, like=DEEPSEEK_LITE),
        "16 of 64 experts; that its queries have no low rank is said by a key, for want of 27 layers",
    ),
    Published(
        "GLM 4.7 Flash", "deepseek2",
        _of("deepseek2", Shape(
            2048, 20, 192, 1, 10_240, 1536, 16, query_rank=768, key_rank=512, positions=64, values=256
        ), {
            "leading_dense_block_count": 1, "attention.q_lora_rank": 768, "attention.kv_lora_rank": 512,
            "attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 256,
            "attention.value_length_mla": 256, "rope.dimension_count": 64, "rope.freq_base": 1_000_000.0,
            "expert_count": 16, "expert_used_count": 4, "expert_feed_forward_length": 1536,
            "expert_weights_scale": 1.8, "expert_weights_norm": True, "expert_gating_func": 2,
        }, like=replace(RECIPES["deepseek2"], dense=1)),
        "16 of 64 experts",
    ),
    Published(
        "gpt-oss 20B", "gpt-oss",
        _of("gpt-oss", Shape(2880, 64, 64, 8, 2880, 2880, 8), {
            **_YARN, "attention.sliding_window": 128, "rope.freq_base": 150_000.0,
            "rope.scaling.factor": 32.0, "expert_count": 8, "expert_used_count": 4,
            "expert_feed_forward_length": 2880,
        }, layers=5, experts_as=GGMLQuantizationType.MXFP4),
        "8 of 32 experts, in MXFP4 as published",
    ),
    Published(
        "GLM 4 9B 0414", "glm4", _of("glm4", Shape(4096, 32, 128, 2, 13_696), {"rope.dimension_count": 64},
                                    ends="output_norm output"),
    ),
    Published(
        "Aya 23 8B", "command-r", _of("command-r", Shape(4096, 32, 128, 8, 14_336), {"logit_scale": 0.0625})
    ),
    Published(
        "Command R7B", "cohere2",
        _of("cohere2", Shape(4096, 32, 128, 8, 14_336), {
            "attention.sliding_window": SHORT_WINDOW, "logit_scale": 0.25, "rope.freq_base": 50_000.0
        }, layers=5),
        _BUT_WINDOW,
    ),
    Published(
        "Falcon 7B", "falcon",
        _of("falcon", Shape(4544, 71, 64, 1, 18_176), layer=f"attn_norm+ attn_qkv attn_output {PLAIN}"),
    ),
    Published(
        "InternLM2 1.8B", "internlm2",
        _of("internlm2", Shape(2048, 16, 128, 8, 8192), {"rope.freq_base": 1_000_000.0})
    ),
    Published(
        "MiniCPM 1B", "minicpm",
        _of("minicpm", Shape(1536, 24, 64, 8, 3840), {
            "embedding_scale": 12.0, "residual_scale": 0.19415, "logit_scale": 6.0
        }),
    ),
    Published(
        "EXAONE 3.5 2.4B", "exaone",
        _of("exaone", Shape(2560, 32, 80, 8, 7168), {"rope.freq_base": 1_000_000.0}, ends=_FREQS),
    ),
    Published(
        "EXAONE 4.0 1.2B", "exaone4",
        _of("exaone4", Shape(2048, 32, 64, 8, 4096), {"rope.freq_base": 1_000_000.0}, ends=_FREQS),
    ),
    Published(
        "SmolLM3 3B", "smollm3",
        _of("smollm3", Shape(2048, 16, 128, 4, 11_008), {**_NORM, "rope.freq_base": 5_000_000.0}, layers=12),
    ),
)  # fmt: skip
"""One of each architecture that people use most; of several sizes one that a small machine can hold."""
