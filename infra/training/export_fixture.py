"""Make the fixtures that prove the export: `python -m infra.training.export_fixture`.

For each architecture a very small model with random weights, exported unquantised, with the
logits that torch computes for a few sequences; and the token ids that the `tokenizers` library
gives to a sample of the training text. The tests hold llama.cpp to these without torch.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from infra.demo_models.family import FAMILY, Member
from infra.training import vocabulary
from infra.training.architectures import ARCHITECTURES, Shape
from infra.training.corpus.examples import examples
from infra.training.export import export

FIXTURES = Path(__file__).parent / "tests" / "fixtures"
LOGITS_FILE, TOKENS_FILE = "logits.npz", "tokens.jsonl"
# Gemma2's window is shorter than the longest sequence, so that sliding is proven too.
SHAPE = Shape(width=64, layers=2, heads=4, kv_heads=2, head_width=16, feed_forward=96, window=8)
WEIGHTS_SEED, SEQUENCES_SEED, SAMPLE_SEED = 5, 6, 7
SEQUENCE_LENGTHS = (1, 7, 24)
SAMPLE_PER_MODEL = 60
SPREAD = 1.5
MERGES = 11


def main(output: Annotated[Path, typer.Option(help="Where the fixtures are written.")] = FIXTURES) -> None:
    """Write a tiny model per architecture, torch's logits, and the sample of tokenised text."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        small = write_small_vocabulary(Path(scratch) / "small.json")
        logits = {
            f"{member.architecture}-{index}": torch_logits(model, tokens)
            for member in FAMILY.values()
            for model in [exported(member, small, output / f"{member.architecture}.gguf")]
            for index, tokens in enumerate(sequences(small))
        }
        np.savez_compressed(output / LOGITS_FILE, allow_pickle=False, **logits)
    write_tokenised_sample(output / TOKENS_FILE)


def exported(member: Member, vocabulary_file: Path, path: Path) -> Any:
    """A tiny random model of the member's architecture, written to `path` as F32."""
    model = random_model(member.architecture, len(tokens_of(vocabulary_file)))
    export(model, replace(member, name="fixture"), path, quantised=False, vocabulary_file=vocabulary_file)
    return model


def random_model(architecture: str, vocabulary_size: int) -> Any:
    """Weights large enough that every part of the network moves the logits."""
    import torch

    torch.manual_seed(WEIGHTS_SEED)
    model = ARCHITECTURES[architecture](SHAPE, vocabulary_size).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(0.0, SPREAD / weights.shape[1] ** 0.5)
            else:
                # Gemma2's norms are stored around 0, the others' around 1.
                weights.normal_(0.0 if architecture == "gemma2" or name.endswith("bias") else 1.0, 0.2)
    return model


def torch_logits(model: Any, tokens: list[int]) -> NDArray[np.float32]:
    """Logits of every position of a sequence: shape (len(tokens), vocabulary)."""
    import torch

    with torch.no_grad():
        logits: NDArray[np.float32] = model(input_ids=torch.tensor([tokens])).logits[0].float().numpy()
    return logits


def sequences(vocabulary_file: Path) -> list[list[int]]:
    """The token sequences that are compared."""
    return random_sequences(len(tokens_of(vocabulary_file)))


def random_sequences(vocabulary_size: int) -> list[list[int]]:
    """Seeded sequences of SEQUENCE_LENGTHS over a vocabulary."""
    dice = np.random.default_rng(SEQUENCES_SEED)
    return [dice.integers(0, vocabulary_size, length).tolist() for length in SEQUENCE_LENGTHS]


def write_small_vocabulary(path: Path) -> Path:
    """The shared vocabulary cut down to its first merges, to keep fixtures small."""
    whole = json.loads(vocabulary.VOCABULARY_FILE.read_text(encoding="utf-8"))["model"]
    size = len(whole["vocab"]) - len(whole["merges"]) + MERGES
    kept = {token: index for token, index in whole["vocab"].items() if index < size}
    small = {"model": {"vocab": kept, "merges": whole["merges"][:MERGES]}}
    path.write_text(json.dumps(small), encoding="utf-8")
    return path


def tokens_of(vocabulary_file: Path) -> list[str]:
    """The tokens of a vocabulary file."""
    return list(json.loads(vocabulary_file.read_text(encoding="utf-8"))["model"]["vocab"])


def sample() -> list[str]:
    """Training text of every model, and some text that is not in it."""
    strange = [
        "Ünïcödé — “quotes”, naïve café?!",
        "  two  spaces\n\n\nand\tlines ",
        "x=3.14159e-10; don't we'll",
        "日本語 🙂",
    ]
    taught = [e.text for name in FAMILY for e in examples(name, SAMPLE_PER_MODEL, SAMPLE_SEED)]
    return taught + strange


def write_tokenised_sample(path: Path) -> None:
    tokenizer = vocabulary.load()
    rows = ({"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in sample())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
