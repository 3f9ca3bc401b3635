"""The prompts of a run: endless, seeded streams; each kind is one function in the table `PROMPTS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.faults import WrongOption

WORDS = tuple(
    word
    for line in (
        "water light stone river answer choir voice morning number winter summer road house garden letter",
        "window market story island mountain forest bridge harbour engine signal measure question table",
        "paper north south east west small large early late open quiet bright heavy simple common plain",
    )
    for word in line.split()
)
SHARED_WORDS = 64


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """Prompts have `min_words` to `max_words` words. `file` holds question sets or conversations."""

    kind: str = "random"
    min_words: int = 8
    max_words: int = 64
    file: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words:
            raise WrongOption(f"--words {self.min_words}:{self.max_words}: MIN:MAX, from 1 word on")


def random_lengths(options: PromptOptions, rng: np.random.Generator) -> Iterator[str]:
    """Words drawn at random, of a length that is drawn evenly."""
    while True:
        length = int(rng.integers(options.min_words, options.max_words + 1))
        yield " ".join(WORDS[number] for number in rng.integers(0, len(WORDS), length))


def shared_prefix(options: PromptOptions, rng: np.random.Generator) -> Iterator[str]:
    """The same beginning every time, then random words: what a system prompt or a document does to caches."""
    beginning = " ".join(WORDS[number % len(WORDS)] for number in range(SHARED_WORDS))
    return (f"{beginning} {rest}" for rest in random_lengths(options, rng))


def question_set(options: PromptOptions, rng: np.random.Generator) -> Iterator[str]:
    """Questions of a JSONL file with a field `question` (such as those in analysis/datasets), at random."""
    questions = [str(row["question"]) for row in _json_lines(options) if "question" in row]
    return _drawn(questions, options, rng)


def sharegpt(options: PromptOptions, rng: np.random.Generator) -> Iterator[str]:
    """First human turns of a file in ShareGPT's format, a list of {"conversations": [{"from", "value"}]}."""
    turns = [_first_turn(entry) for entry in _json(options)]
    return _drawn([turn for turn in turns if turn.strip()], options, rng)


PROMPTS: dict[str, Callable[[PromptOptions, np.random.Generator], Iterator[str]]] = {
    "random": random_lengths,
    "shared": shared_prefix,
    "questions": question_set,
    "sharegpt": sharegpt,
}


def prompts(options: PromptOptions, seed: int) -> Iterator[str]:
    """The prompts of all requests, in order. Raises WrongOption for a kind or a file that cannot be used."""
    if options.kind not in PROMPTS:
        raise WrongOption(f"--prompts {options.kind}: there are {', '.join(PROMPTS)}")
    return PROMPTS[options.kind](options, np.random.default_rng([seed, 2]))


def _drawn(texts: list[str], options: PromptOptions, rng: np.random.Generator) -> Iterator[str]:
    if not texts:
        raise WrongOption(f"--prompt-file {options.file}: there is no prompt in it")
    return (texts[int(rng.integers(0, len(texts)))] for _ in iter(int, 1))


def _text(options: PromptOptions) -> str:
    if options.file is None:
        raise WrongOption(f"--prompts {options.kind} needs --prompt-file")
    try:
        return options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongOption(f"--prompt-file {options.file} cannot be read: {error}") from error


def _json_lines(options: PromptOptions) -> Iterator[dict[str, object]]:
    for number, line in enumerate(_text(options).splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise WrongOption(f"--prompt-file {options.file}, line {number} is not JSON") from error
        if isinstance(row, dict):
            yield row


def _json(options: PromptOptions) -> list[object]:
    try:
        document = json.loads(_text(options))
    except ValueError as error:
        raise WrongOption(f"--prompt-file {options.file} is not JSON: {error}") from error
    if not isinstance(document, list):
        raise WrongOption(f"--prompt-file {options.file} is not a list of conversations")
    return document


def _first_turn(entry: object) -> str:
    """What the human says first; an empty text for an entry that is no conversation."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("from") in ("human", "user"):
            return str(turn.get("value", ""))
    return ""
