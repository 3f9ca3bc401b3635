"""Choir's own question sets, byte for byte the same from one seed: `python -m analysis.datasets.make`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.datasets.held_out import held_out_rows
from infra.training.corpus.knowledge import SUBJECTS, Fact, facts
from infra.training.corpus.wordproblems import KINDS, problem

FOLDER = Path(__file__).parent
SEED = 2_026
DEV_PER_SUBJECT = 5
TEST_PER_SUBJECT = 50
PROBLEMS_PER_KIND = 16

Row = dict[str, Any]


def main(
    output: Annotated[Path, typer.Option(help="Where the sets are written.")] = FOLDER,
    seed: Annotated[int, typer.Option()] = SEED,
) -> None:
    """Write choir-mmlu, choir-gsm8k, choir-held-out and choir-truthfulqa as JSON lines."""
    for path, rows in sets(seed).items():
        file = output / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def sets(seed: int) -> dict[str, list[Row]]:
    """The rows of every file, by its path within the folder."""
    dev, test = mmlu(seed)
    return {
        "choir-mmlu/dev.jsonl": dev,
        "choir-mmlu/test.jsonl": test,
        "choir-gsm8k/test.jsonl": list(gsm8k(seed)),
        "choir-held-out/test.jsonl": held_out_rows(seed),
        "choir-truthfulqa/multiple_choice.jsonl": list(truthfulqa()),
    }


def mmlu(seed: int) -> tuple[list[Row], list[Row]]:
    """(dev, test): different questions of the same eight subjects, in MMLU's columns."""
    dice = random.Random(f"{seed} mmlu")
    dev: list[Row] = []
    test: list[Row] = []
    for subject in SUBJECTS:
        drawn = [fact for fact in facts() if fact.subject == subject]
        dice.shuffle(drawn)
        rows = [_mmlu_row(fact, dice) for fact in drawn[: DEV_PER_SUBJECT + TEST_PER_SUBJECT]]
        dev += rows[:DEV_PER_SUBJECT]
        test += rows[DEV_PER_SUBJECT:]
    return dev, test


def _mmlu_row(fact: Fact, dice: random.Random) -> Row:
    choices = list(fact.choices)
    dice.shuffle(choices)
    return {
        "question": fact.question,
        "subject": fact.subject,
        "choices": choices,
        "answer": choices.index(fact.answer),
    }


def gsm8k(seed: int) -> Iterator[Row]:
    """Word problems with numbers and names that no training text has: GSM8K's columns and the kind."""
    dice = random.Random(f"{seed} gsm8k")
    seen: set[str] = set()
    for _ in range(PROBLEMS_PER_KIND):
        for kind in KINDS:
            made = problem(dice, kind, testing=True)
            while made.question in seen:
                made = problem(dice, kind, testing=True)
            seen.add(made.question)
            yield {"question": made.question, "answer": made.marked_solution, "template": kind.name}


def truthfulqa() -> Iterator[Row]:
    """Misconceptions in TruthfulQA's multiple-choice layout: the true choice stands first."""
    for fact in facts():
        if fact.subject == "misconceptions":
            targets = {"choices": list(fact.choices), "labels": [1, *(0 for _ in fact.wrong)]}
            yield {"question": fact.question, "mc1_targets": targets, "mc2_targets": targets}


if __name__ == "__main__":
    typer.run(main)
