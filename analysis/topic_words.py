"""Writes the table of words by which free questions are given a topic: `python -m analysis.topic_words`.

The topics are the subjects of choir-mmlu, and `word problems` for choir-gsm8k. `--check` instead tells how
often the topic of a question is found with a table made without it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from analysis.datasets.make import FOLDER
from services.aggregator.topics.classifier import TABLE, TopicWords, words_of

WORD_PROBLEMS = "word problems"
IMAGINED = 0.5
LEAST_WEIGHT = 0.7
LEAST_QUESTIONS = 2
FOLDS = 5

Labelled = tuple[str, str]
"""A question and its topic."""


def main(
    output: Annotated[Path, typer.Option(help="Where the table is written.")] = TABLE,
    check: Annotated[bool, typer.Option("--check", help="Measure instead of writing.")] = False,
) -> None:
    """Write the table of topic words."""
    if check:
        right, wrong, silent = held_out(list(labelled()))
        typer.echo(f"held out in {FOLDS} folds: {right} right, {wrong} wrong, {silent} without a topic")
    else:
        output.write_text(render(labelled()), encoding="utf-8")


def labelled(folder: Path = FOLDER) -> Iterator[Labelled]:
    """The questions of the project's own sets with their topics."""
    for name in ("dev", "test"):
        for row in _rows(folder / "choir-mmlu" / f"{name}.jsonl"):
            yield row["question"], row["subject"]
    for row in _rows(folder / "choir-gsm8k" / "test.jsonl"):
        yield row["question"], WORD_PROBLEMS


def _rows(path: Path) -> Iterator[dict[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def render(questions: Iterable[Labelled]) -> str:
    """The table as a file: a topic in each line."""
    lines = [f" {json.dumps(topic)}: {json.dumps(weights)}" for topic, weights in table(questions).items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def table(questions: Iterable[Labelled]) -> dict[str, dict[str, float]]:
    """`ln(P(word | topic) / P(word | other topics))` for words that tell a topic from the others."""
    asked: Counter[str] = Counter()
    with_word: Counter[tuple[str, str]] = Counter()
    for text, topic in questions:
        asked[topic] += 1
        with_word.update((topic, word) for word in words_of(text))
    of_word = Counter[str]()
    for (_, word), count in with_word.items():
        of_word[word] += count
    return {topic: _weights(topic, asked, with_word, of_word) for topic in sorted(asked)}


def _weights(
    topic: str, asked: Counter[str], with_word: Counter[tuple[str, str]], of_word: Counter[str]
) -> dict[str, float]:
    others = asked.total() - asked[topic]
    weights = {}
    for word in sorted(of_word):
        here, elsewhere = with_word[topic, word], of_word[word] - with_word[topic, word]
        weight = math.log((here + IMAGINED) / (asked[topic] + 1)) - math.log(
            (elsewhere + IMAGINED) / (others + 1)
        )
        if weight >= LEAST_WEIGHT and here >= LEAST_QUESTIONS:
            weights[word] = round(weight, 2)
    return weights


def held_out(questions: Sequence[Labelled]) -> tuple[int, int, int]:
    """How many questions get their topic, another one, or none, from a table made without their fold."""
    right = wrong = silent = 0
    for fold in range(FOLDS):
        rest = [question for i, question in enumerate(questions) if i % FOLDS != fold]
        classifier = TopicWords(table(rest))
        for text, topic in questions[fold::FOLDS]:
            found = classifier.topic_of(text)
            right += found == topic
            silent += found is None
            wrong += found not in (None, topic)
    return right, wrong, silent


if __name__ == "__main__":
    typer.run(main)
