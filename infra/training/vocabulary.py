"""The byte-pair vocabulary that the four models share, made with the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.demo_models.family import FAMILY
from infra.training.corpus.examples import ASSISTANT, END, SYSTEM, USER, examples

VOCABULARY_FILE = Path(__file__).with_name("vocabulary.json")
PADDING = "<|endoftext|>"
SPECIAL_TOKENS = (PADDING, SYSTEM, USER, ASSISTANT, END)
SIZE = 2_560
SAMPLE_PER_MODEL = 15_000
SAMPLE_SEED = 1

# How text falls into words before pairs are merged: Qwen2's pattern, in which every digit stands
# alone. llama.cpp knows it by this name (`tokenizer.ggml.pre`).
PRE_TOKENIZER = "qwen2"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def sample() -> list[str]:
    """The training text that the vocabulary is made from."""
    return [example.text for name in FAMILY for example in examples(name, SAMPLE_PER_MODEL, SAMPLE_SEED)]


def make() -> Any:
    """A trained `tokenizers.Tokenizer`: byte-level BPE, special tokens first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sample(), trainer)
    return tokenizer


def load(path: Path = VOCABULARY_FILE) -> Any:
    """The vocabulary as it stands in the repository."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def make_file(path: Path = VOCABULARY_FILE) -> None:
    """Write the vocabulary anew."""
    make().save(str(path), pretty=False)


if __name__ == "__main__":
    make_file()
