"""Strategies that learn as they go, decided again with the questions in several orders; nobody is asked.

What such a strategy knows of a question depends on which came before. The first order is the run's own.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.replay import strategy_outcomes
from analysis.evaluation.scoring.information import learns_from
from analysis.evaluation.scoring.reading import Asked
from analysis.statistics.questions import fold

Row = dict[str, Any]
AS_THEY_GO = ("labels before", "agreement")


def order_rows(asked: Sequence[Asked], names: Sequence[str], orders: int, seed: int) -> list[Row]:
    """A row for each benchmark and each of `names` that learns as it goes; none with a single order."""
    learning = [name for name in names if learns_from(name, "strategy") in AS_THEY_GO]
    if orders < 2 or not learning:
        return []
    found: dict[tuple[str, str], list[list[Outcome]]] = {}
    for shuffled in _orders(asked, orders, seed):
        for (benchmark, name), outcomes in _by_contestant(strategy_outcomes(shuffled, learning)).items():
            found.setdefault((benchmark, name), []).append(outcomes)
    return [_row(benchmark, name, each) for (benchmark, name), each in found.items()]


def _orders(asked: Sequence[Asked], orders: int, seed: int) -> Iterator[list[Asked]]:
    yield list(asked)
    for number in range(1, orders):
        shuffled = list(asked)
        random.Random(f"{seed} order {number}").shuffle(shuffled)
        yield shuffled


def _by_contestant(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    by_name: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_name.setdefault((outcome.benchmark, outcome.contestant), []).append(outcome)
    return by_name


def _row(benchmark: str, name: str, in_orders: Sequence[Sequence[Outcome]]) -> Row:
    accuracies = [statistics.fmean(outcome.expected for outcome in each) for each in in_orders]
    answers: dict[tuple[str, int], set[str | None]] = {}
    for each in in_orders:
        for outcome in each:
            answers.setdefault((outcome.question_id, outcome.repetition), set()).add(outcome.answer)
    questions = fold((outcome.question_id, outcome.expected) for outcome in in_orders[0])
    return {
        "benchmark": benchmark,
        "contestant": name,
        "learns_from": learns_from(name, "strategy"),
        "seen_in_training": seen_in_training({benchmark}),
        "n_questions": questions.n,
        "orders": len(accuracies),
        "accuracy_in_own_order": accuracies[0],
        "accuracy": statistics.fmean(accuracies),
        "sd_between_orders": statistics.stdev(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "decided_otherwise": statistics.fmean(len(each) > 1 for each in answers.values()),
    }
