"""The table of architectures that can be cut into slices, and of what llama.cpp makes of a layer's index.

Read from the sources of the llama.cpp that is pinned in `pyproject.toml` (`src/models/*.cpp`): how each
architecture loads its keys and tensors, and what its graph does between two layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.engine.model.gguf.header import GgufHeader

LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(.+)")
EMBEDDINGS = "token_embd.weight"
OUTPUT, OUTPUT_BIAS = "output.weight", "output.bias"
WINDOW_PATTERN = "attention.sliding_window_pattern"
EMBEDDED, SCALED = "embd", "inp_scaled"
"""What llama.cpp's graphs call the embeddings of a batch, and the same after they were scaled."""


@dataclass(frozen=True, slots=True)
class LayerCount:
    """Something that llama.cpp tells a model by: so many `layers`, `or_more`, which it takes for `meaning`.
    No slice of another model may have that many; and the model itself cannot be cut, unless a key can say
    the same (`can_be_said`)."""

    layers: int
    meaning: str
    or_more: bool = False
    can_be_said: bool = False

    def is_met_by(self, layers: int) -> bool:
        """Whether llama.cpp would take so many layers for it."""
        return layers == self.layers or (self.or_more and layers > self.layers)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What matters of an architecture for slices of it.

    - `window_period`: all but the last of so many layers have a sliding window, where the file does not say
      which. 0: no layer has one. A slice says it of each of its layers, and has at least one such layer:
      without one llama.cpp ends the process.
    - `window_is_named`: there are windows only if the file says how long.
    - `index_period`: what llama.cpp takes from a layer's index, and no key can say, repeats after so many
      layers. Slices begin at its multiples.
    - `step_key`: a key whose number is such a period too.
    - `entry`: the tensor of the graph that hidden states are put into. None: llama.cpp takes them in the
      place of embeddings, and leaves them as they are.
    - `scales_embeddings`: with the number under `embedding_scale`, hidden states too.
    - `needs_output`: what it insists on though a slice may never compute with it.
    - `layer_counts`: the numbers of layers that mean something.
    """

    window_period: int = 0
    window_is_named: bool = False
    index_period: int = 1
    step_key: str | None = None
    entry: str | None = None
    scales_embeddings: bool = False
    needs_output: tuple[str, ...] = ()
    layer_counts: tuple[LayerCount, ...] = ()


_UNTIED = (OUTPUT,)
_SCALE_OF_27B = "the 27B form, whose attention it scales otherwise"
_LITE = "a Lite form, whose queries have no low rank"
_DEEPSEEK2 = Architecture(
    layer_counts=(LayerCount(26, _LITE, can_be_said=True), LayerCount(27, _LITE, can_be_said=True))
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "apertus": Architecture(needs_output=_UNTIED),
    "arcee": Architecture(),
    "bailingmoe": Architecture(needs_output=_UNTIED),
    "bailingmoe2": Architecture(needs_output=_UNTIED),
    "chatglm": Architecture(),
    "cohere2": Architecture(window_period=4),
    "command-r": Architecture(
        layer_counts=(LayerCount(64, "Command R+, whose keys and queries have norms", or_more=True),)
    ),
    "dbrx": Architecture(needs_output=_UNTIED),
    "deepseek": Architecture(),
    "deepseek2": _DEEPSEEK2,
    "dots1": Architecture(needs_output=_UNTIED),
    "ernie4_5": Architecture(),
    "ernie4_5-moe": Architecture(step_key="interleave_moe_layer_step"),
    "exaone": Architecture(),
    "exaone-moe": Architecture(window_period=4, needs_output=_UNTIED),
    "exaone4": Architecture(layer_counts=(LayerCount(64, "the 32B form, which has sliding windows"),)),
    "falcon": Architecture(),
    "gemma": Architecture(entry=SCALED),
    "gemma2": Architecture(window_period=2, entry=SCALED, layer_counts=(LayerCount(46, _SCALE_OF_27B),)),
    "gemma3": Architecture(
        window_period=6, window_is_named=True, layer_counts=(LayerCount(62, _SCALE_OF_27B),)
    ),
    "glm4": Architecture(entry=EMBEDDED),
    "glm4moe": Architecture(entry=EMBEDDED),
    "gpt-oss": Architecture(window_period=2, needs_output=_UNTIED),
    "gptneox": Architecture(needs_output=_UNTIED),
    "granite": Architecture(scales_embeddings=True),
    "granitemoe": Architecture(scales_embeddings=True),
    "hunyuan-dense": Architecture(),
    "hunyuan-moe": Architecture(),
    "internlm2": Architecture(needs_output=_UNTIED),
    "llama": Architecture(),
    "llama4": Architecture(window_period=4, index_period=4, step_key="interleave_moe_layer_step"),
    "maincoder": Architecture(),
    "minicpm": Architecture(scales_embeddings=True),
    "minimax-m2": Architecture(needs_output=_UNTIED),
    "mistral3": Architecture(),
    "mistral4": _DEEPSEEK2,
    "nemotron": Architecture(needs_output=_UNTIED),
    "olmo": Architecture(),
    "olmo2": Architecture(window_period=4, window_is_named=True, needs_output=_UNTIED),
    "olmoe": Architecture(needs_output=_UNTIED),
    "orion": Architecture(needs_output=_UNTIED),
    "pangu-embedded": Architecture(),
    "phi2": Architecture(needs_output=(OUTPUT, OUTPUT_BIAS)),
    "phi3": Architecture(),
    "phimoe": Architecture(needs_output=(OUTPUT, OUTPUT_BIAS)),
    "qwen": Architecture(needs_output=_UNTIED),
    "qwen2": Architecture(),
    "qwen2moe": Architecture(needs_output=_UNTIED),
    "qwen3": Architecture(),
    "qwen3moe": Architecture(),
    "seed_oss": Architecture(),
    "smollm3": Architecture(index_period=4),
    "stablelm": Architecture(needs_output=_UNTIED),
    "starcoder2": Architecture(),
    "xverse": Architecture(needs_output=_UNTIED),
}


_LATER_READ_EARLIER = "later layers read what earlier ones have computed"
_STATE = (
    "its layers keep a state that cannot be taken back to an earlier token, as a pipeline does that recovers"
)
_NO_DECODER = "it is no model that goes on with texts token by token"
_LOOPS = "it runs its layers more than once for a token"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("gemma3n", "gemma4"),
        "every layer is given an input of its own beside the hidden state, and later ones read the caches of "
        "earlier ones",
    ),
    **dict.fromkeys(("kimi-k3", "deepseek4", "qwen4exp"), _LATER_READ_EARLIER),
    **dict.fromkeys(("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"), _STATE),
    **dict.fromkeys(("jamba", "falcon-h1", "granitehybrid", "nemotron_h", "nemotron_h_moe"), _STATE),
    **dict.fromkeys(("lfm2", "lfm2moe", "plamo2", "qwen3next", "qwen35", "qwen35moe"), _STATE),
    **dict.fromkeys(("kimi-linear", "minimax-01", "bailingmoe3"), _STATE),
    **dict.fromkeys(("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert"), _NO_DECODER),
    **dict.fromkeys(("jina-bert-v2", "jina-bert-v3", "eurobert", "gemma-embedding"), _NO_DECODER),
    **dict.fromkeys(("llama-embed", "t5", "t5encoder", "clip", "wavtokenizer-dec"), _NO_DECODER),
    **dict.fromkeys(("hrm_text", "nanbeige"), _LOOPS),
    "baichuan": "llama.cpp takes from its number of layers, 32 or 40, how positions are told, and tells none "
    "where there are others",
}
"""Why an architecture that llama.cpp knows cannot be cut."""

UNTRIED: tuple[str, ...] = (
    *("afmoe", "arctic", "bitnet", "bloom", "chameleon", "codeshell", "cogvlm", "cohere2moe"),
    *("deci", "deepseek2-ocr", "deepseek32", "dflash", "dots3note", "dream", "eagle3"),
    *("gemma4-assistant", "glm-dsa", "glm5-next", "gpt2", "gptj", "granite_swa", "graniteswitch"),
    *("grok", "grovemoe", "hunyuan_vl", "hy_v3", "hy_v4", "jais", "jais2", "laguna", "llada"),
    *("llada-moe", "maple", "mellum", "mimo2", "minicpm3", "minimax-m3", "mpt", "muse-glimmer"),
    *("openelm", "paddleocr", "plamo", "plamo3", "plm", "pockettts", "qwen2vl", "qwen3tts"),
    *("qwen3vl", "qwen3vlmoe", "refact", "rnd1", "smallthinker", "spark2_5", "starcoder", "step35"),
    "talkie",
)
"""What llama.cpp knows besides: nobody has read its sources for these, and none was cut."""


def trunk_layers(header: GgufHeader) -> int:
    """How many layers a token goes through. The file may have more after these, which predict further
    tokens; the engine does not use them."""
    name = header.text("general.architecture")
    predicting = header.integer(f"{name}.nextn_predict_layers") or 0
    return max(0, (header.integer(f"{name}.block_count") or 0) - max(0, predicting))


def windows_of(header: GgufHeader) -> list[bool]:
    """Which of a model's layers have a sliding window; empty where llama.cpp sees none in it."""
    name = header.text("general.architecture") or ""
    architecture = ARCHITECTURES[name]
    length = header.integer(f"{name}.attention.sliding_window")
    if not architecture.window_period or (architecture.window_is_named and not length):
        return []
    listed, stated = header.array(f"{name}.{WINDOW_PATTERN}"), header.integer(f"{name}.{WINDOW_PATTERN}")
    if listed is not None:
        return [bool(number) for number in listed.numbers]
    period = architecture.window_period if stated is None else max(0, stated)
    return [period == 0 or layer % period < period - 1 for layer in range(trunk_layers(header))]
