"""A model that gives vectors and no text: BERT's shape in two narrow layers of random weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, FEED_FORWARD, LAYERS, CONTEXT_TOKENS = 32, 2, 64, 2, 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁a", "▁giraffe", "▁the", "▁moon", "▁is", "s", "▁long"]
NORMAL, UNKNOWN, CONTROL = 1, 2, 3
MEAN_POOLING = 1


def write_bert(path: Path) -> Path:
    """Writes the file."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny-bert")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(MEAN_POOLING))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORDS)
    writer.add_token_types([CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL, *([NORMAL] * (len(WORDS) - 5))])
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(1)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_token_type_count(2)
    numbers = np.random.default_rng(7)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (numbers.standard_normal(shape) * 0.2).astype(np.float32))

    add("token_embd.weight", len(WORDS), WIDTH)
    add("token_types.weight", 2, WIDTH)
    add("position_embd.weight", CONTEXT_TOKENS, WIDTH)
    norms = [
        f"blk.{layer}.{name}_norm" for layer in range(LAYERS) for name in ("attn_output", "layer_output")
    ]
    for norm in ("token_embd_norm", *norms):
        add(f"{norm}.weight", WIDTH)
        add(f"{norm}.bias", WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
            add(f"blk.{layer}.{name}.bias", WIDTH)
        add(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_up.bias", FEED_FORWARD)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
        add(f"blk.{layer}.ffn_down.bias", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
