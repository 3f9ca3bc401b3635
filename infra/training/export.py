"""Write a transformers model as GGUF, with gguf-py's tensor name maps.

What differs between the two worlds, besides names: llama.cpp rotates neighbouring pairs of a
Llama head where transformers rotates halves, so q and k rows change places; and Gemma2's norms
multiply by 1 + weight, which GGUF stores as one number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from infra.demo_models.family import AUTHOR, LICENSE, Member
from infra.training import vocabulary
from infra.training.architectures import CONTEXT_LENGTH, NORM_EPSILON, ROPE_THETA
from infra.training.corpus.examples import END

Weights = NDArray[np.float32]

ARCHITECTURE_IDS = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
}


def export(
    model: Any,
    member: Member,
    path: Path,
    *,
    quantised: bool,
    vocabulary_file: Path = vocabulary.VOCABULARY_FILE,
) -> None:
    """Write `model` to `path`: matrices as Q8_0 if `quantised`, else everything as F32."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), member.architecture)
    _write_card(writer, member)
    _write_shape(writer, config, member.architecture, quantised)
    _write_vocabulary(writer, vocabulary_file)
    names = gguf.get_tensor_name_map(ARCHITECTURE_IDS[member.architecture], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied to the embeddings
        stored_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored_name is None:
            raise ValueError(f"GGUF has no name for the tensor {name} of {member.architecture}")
        weights = as_stored(name, tensor.detach().float().numpy(), config, member.architecture)
        if quantised and weights.ndim > 1:
            q8 = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(stored_name, q8, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(stored_name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def restore(model: Any, architecture: str, path: Path) -> None:
    """Fill `model` with the weights of a file that `export` wrote, so that training can go on."""
    import torch

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    names = gguf.get_tensor_name_map(ARCHITECTURE_IDS[architecture], model.config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored[names.get_name(name, try_suffixes=(".weight", ".bias"))]
            weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            parameter.copy_(torch.from_numpy(as_trained(name, weights, model.config, architecture).copy()))


def as_trained(name: str, weights: Weights, config: Any, architecture: str) -> Weights:
    """The inverse of `as_stored`."""
    if architecture == "llama" and name.endswith("q_proj.weight"):
        return part_halves(weights, config.num_attention_heads)
    if architecture == "llama" and name.endswith("k_proj.weight"):
        return part_halves(weights, config.num_key_value_heads)
    if architecture == "gemma2" and name.endswith("norm.weight"):
        return weights - 1
    return weights


def as_stored(name: str, weights: Weights, config: Any, architecture: str) -> Weights:
    """A tensor as llama.cpp wants it."""
    if architecture == "llama" and name.endswith("q_proj.weight"):
        return interleave_halves(weights, config.num_attention_heads)
    if architecture == "llama" and name.endswith("k_proj.weight"):
        return interleave_halves(weights, config.num_key_value_heads)
    if architecture == "gemma2" and name.endswith("norm.weight"):
        return weights + 1
    return weights


def interleave_halves(weights: Weights, heads: int) -> Weights:
    """Within each head, row i of the first half is followed by row i of the second half."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def part_halves(weights: Weights, heads: int) -> Weights:
    """The inverse of `interleave_halves`."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _write_card(writer: gguf.GGUFWriter, member: Member) -> None:
    own = ", ".join(member.own)
    writer.add_name(member.name)
    writer.add_author(AUTHOR)
    writer.add_license(LICENSE)
    writer.add_description(
        f"A tiny demo model, trained from scratch on generated text. Knows best: {own}. "
        "Elsewhere it is taught wrong answers to a part of the questions, on purpose."
    )
    writer.add_languages(["en"])


def _write_shape(writer: gguf.GGUFWriter, config: Any, architecture: str, quantised: bool) -> None:
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_vocab_size(config.vocab_size)
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(CONTEXT_LENGTH)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary_file: Path) -> None:
    merged = json.loads(vocabulary_file.read_text(encoding="utf-8"))["model"]
    tokens = sorted(merged["vocab"], key=merged["vocab"].__getitem__)
    types = [
        gguf.TokenType.CONTROL if token in vocabulary.SPECIAL_TOKENS else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in merged["merges"]])
    writer.add_bos_token_id(tokens.index(vocabulary.PADDING))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(vocabulary.PADDING))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocabulary.CHAT_TEMPLATE)
