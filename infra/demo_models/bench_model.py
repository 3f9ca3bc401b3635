"""Writes a model with random weights, to measure and test: `python -m infra.demo_models.bench_model`.

The shapes are those of Qwen2-0.5B (24 layers, width 896, 14 heads, 2 of them with keys and values) in the
llama architecture, the weights Q8_0, the vocabulary bytes and a few merges. Nothing can be learned from what
it says, but it takes the time and memory of a real model. The same parameters give the same file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

RECIPE_KEY = "choir.bench.recipe"
RECIPE_VERSION = 2
BLOCK = 32
BLOCK_BYTES = 34
INT8_UNIFORM_STD = 73.3
CONTEXT_TOKENS = 4096
LEAN_HEADS = 2
LEAN_FEED_FORWARD = 256
MERGES = ("t h", "Ġ t", "i n", "e r", "a n", "o n", "th e", "Ġt he")
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Blocks = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a bench model is made of; `width` is a multiple of 32. A `lean` one has hidden states of a large
    model, and between them layers so small that it takes little room and time: what travels between stages is
    that of the large model."""

    layers: int
    width: int
    seed: int
    lean: bool = False

    @property
    def head_size(self) -> int:
        return 64 if self.width % 64 == 0 and self.width >= 128 else BLOCK

    @property
    def heads(self) -> int:
        return LEAN_HEADS if self.lean else self.width // self.head_size

    @property
    def key_value_heads(self) -> int:
        return 2 if self.heads % 2 == 0 else 1

    @property
    def feed_forward(self) -> int:
        return LEAN_FEED_FORWARD if self.lean else self.width * 38 // 7 // BLOCK * BLOCK

    @property
    def recipe(self) -> str:
        lean = " lean" if self.lean else ""
        return f"v{RECIPE_VERSION} layers={self.layers} width={self.width} seed={self.seed}{lean}"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix to write: `rows` outputs of `columns` inputs, entries of standard deviation `std`."""

    name: str
    rows: int
    columns: int
    std: float


def default_path(layers: int = 24, width: int = 896, seed: int = 0, *, lean: bool = False) -> Path:
    """Where the model is kept when no path is given: the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "choir" / f"bench-{layers}x{width}-s{seed}{'-lean' if lean else ''}.gguf"


def write_bench_model(
    path: Path | None = None, *, layers: int = 24, width: int = 896, seed: int = 0, lean: bool = False
) -> Path:
    """The path of a random-weight model, written unless it is there already.

    Raises ValueError for a shape that cannot be, OSError where the folder cannot be written.
    """
    if not 1 <= layers <= 512 or width < BLOCK or width % BLOCK:
        raise ValueError(f"layers is 1 to 512 and width a multiple of {BLOCK}, not {layers} and {width}")
    shape = Shape(layers, width, seed, lean)
    path = path or default_path(layers, width, seed, lean=lean)
    if not _is_made(path, shape):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            _write(unfinished, shape)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def _is_made(path: Path, shape: Shape) -> bool:
    if not path.is_file():
        return False
    try:
        field = gguf.GGUFReader(path).get_field(RECIPE_KEY)
    except ValueError:
        return False
    return field is not None and field.contents() == shape.recipe


def _write(path: Path, shape: Shape) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, shape)
    _add_tokenizer(writer)
    matrices = list(_matrices(shape))
    norms = [f"blk.{i}.{kind}_norm.weight" for i in range(shape.layers) for kind in ("attn", "ffn")]
    for matrix in matrices:
        nbytes = matrix.rows * matrix.columns // BLOCK * BLOCK_BYTES
        byte_shape = (matrix.rows, matrix.columns // BLOCK * BLOCK_BYTES)
        writer.add_tensor_info(
            matrix.name, byte_shape, np.dtype(np.uint8), nbytes, gguf.GGMLQuantizationType.Q8_0
        )
    for name in [*norms, "output_norm.weight"]:
        writer.add_tensor_info(name, (shape.width,), np.dtype(np.float32), 4 * shape.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(shape.seed)
    for matrix in matrices:
        writer.write_tensor_data(_random_blocks(matrix, random))
    for _ in range(len(norms) + 1):
        writer.write_tensor_data(np.ones(shape.width, dtype=np.float32))
    writer.close()


def _matrices(shape: Shape) -> Iterator[Matrix]:
    """The weights, scaled so that hidden states and logits keep a standard deviation near one."""
    inward = shape.width**-0.5
    residual = inward * (2 * shape.layers) ** -0.5
    query = shape.heads * shape.head_size
    key_value = shape.key_value_heads * shape.head_size
    yield Matrix("token_embd.weight", len(vocabulary()), shape.width, 1.0)
    yield Matrix("output.weight", len(vocabulary()), shape.width, inward)
    for i in range(shape.layers):
        yield Matrix(f"blk.{i}.attn_q.weight", query, shape.width, inward)
        yield Matrix(f"blk.{i}.attn_k.weight", key_value, shape.width, inward)
        yield Matrix(f"blk.{i}.attn_v.weight", key_value, shape.width, inward)
        yield Matrix(f"blk.{i}.attn_output.weight", shape.width, query, residual)
        yield Matrix(f"blk.{i}.ffn_gate.weight", shape.feed_forward, shape.width, inward)
        yield Matrix(f"blk.{i}.ffn_up.weight", shape.feed_forward, shape.width, inward)
        yield Matrix(f"blk.{i}.ffn_down.weight", shape.width, shape.feed_forward, residual)


def _random_blocks(matrix: Matrix, random: np.random.Generator) -> Blocks:
    """Q8_0 blocks, a half-precision scale and 32 signed bytes each, without the cost of quantising."""
    blocks = np.empty((matrix.rows, matrix.columns // BLOCK, BLOCK_BYTES), dtype=np.uint8)
    scale = np.array([matrix.std / INT8_UNIFORM_STD], dtype=np.float16)
    blocks[..., :2] = scale.view(np.uint8)
    blocks[..., 2:] = random.integers(-127, 128, blocks[..., 2:].shape, dtype=np.int8).view(np.uint8)
    if matrix.name == "output.weight":
        blocks[[i for i, token in enumerate(vocabulary()) if not _speakable(token)], :, 2:] = 0
    return blocks.reshape(matrix.rows, -1)


def vocabulary() -> list[str]:
    """The tokens: every byte as byte-level BPE spells it, the merges, the control tokens."""
    return [*_byte_letters(), *(merge.replace(" ", "") for merge in MERGES), *CONTROL_TOKENS]


def _byte_letters() -> list[str]:
    """A visible character for each byte, the mapping of GPT-2's byte-level vocabulary."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, spare = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte if byte in visible else spare)
        spare += byte not in visible
    return [letters[byte] for byte in range(256)]


def _speakable(token: str) -> bool:
    """Tokens a random model should say: readable ones, and none that ends the text."""
    return token not in CONTROL_TOKENS and all("!" <= letter <= "~" or letter == "Ġ" for letter in token)


def _add_metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("choir-bench")
    writer.add_description("Random weights of a real model's shape, for measurements")
    writer.add_string(RECIPE_KEY, shape.recipe)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_block_count(shape.layers)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    if shape.lean:
        writer.add_key_length(shape.head_size)
        writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary()))


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokens = vocabulary()
    types = [gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main(arguments: list[str] | None = None) -> int:
    """Writes the model and says where it is; 1 with a sentence on stderr where that fails."""
    parser = argparse.ArgumentParser(prog="bench_model", description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="default: the cache folder")
    options = parser.parse_args(arguments)
    path = options.out or default_path(options.layers, options.width, options.seed)
    try:
        write_bench_model(path, layers=options.layers, width=options.width, seed=options.seed)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the bench model cannot be written to {path}: {error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
