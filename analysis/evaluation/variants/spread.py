"""The same questions with several prompts and several orders of their options: how far the figures differ.

The standard deviations are between the accuracies of the prompts (each over all orders) and of the orders
(each over all prompts), with n - 1; they hold what chance does too. The tests do not need them: a question is
one cluster, however often it was asked.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.scoring.scores import OVERALL, Contestant, Field

Row = dict[str, Any]
Variant = tuple[str, int]
"""A prompt by its name, and an order of the options by its number."""


def variants_of(exchanges: Iterable[Exchange]) -> dict[tuple[str, int], Variant]:
    """The variant that each repetition of each benchmark is."""
    return {(each.benchmark, each.repetition): (each.prompt_name, each.order) for each in exchanges}


def variant_rows(fields: Sequence[Field], variants: Mapping[tuple[str, int], Variant]) -> list[Row]:
    """A row for each benchmark, contestant, prompt and order; none where all was asked in one way."""
    return [
        {
            "benchmark": field.benchmark,
            "contestant": contestant.name,
            "group": contestant.group,
            "seen_in_training": seen_in_training({field.benchmark}),
            "prompt": prompt,
            "order": order,
            "n_questions": len(scores),
            "accuracy": statistics.fmean(scores),
        }
        for field in _varied(fields, variants)
        for contestant in field.contestants
        for (prompt, order), scores in sorted(_scores(contestant, variants).items())
    ]


def spread_rows(fields: Sequence[Field], variants: Mapping[tuple[str, int], Variant]) -> list[Row]:
    """A row for each benchmark and contestant: how far prompts lie apart, and orders."""
    return [
        {
            "benchmark": field.benchmark,
            "contestant": contestant.name,
            "group": contestant.group,
            "seen_in_training": seen_in_training({field.benchmark}),
            "n_questions": field.n_questions,
            "accuracy": float(contestant.means.mean()),
            **_apart("prompts", _scores(contestant, variants), 0),
            **_apart("orders", _scores(contestant, variants), 1),
        }
        for field in _varied(fields, variants)
        for contestant in field.contestants
    ]


def _varied(fields: Sequence[Field], variants: Mapping[tuple[str, int], Variant]) -> list[Field]:
    ways: dict[str, set[Variant]] = {}
    for (benchmark, _), variant in variants.items():
        ways.setdefault(benchmark, set()).add(variant)
    return [
        field for field in fields if field.benchmark != OVERALL and len(ways.get(field.benchmark, ())) > 1
    ]


def _scores(
    contestant: Contestant, variants: Mapping[tuple[str, int], Variant]
) -> dict[Variant, list[float]]:
    scores: dict[Variant, list[float]] = {}
    for outcome in contestant.outcomes:
        scores.setdefault(variants[outcome.benchmark, outcome.repetition], []).append(outcome.expected)
    return scores


def _apart(name: str, scores: Mapping[Variant, Sequence[float]], place: int) -> Row:
    """Over the one part of a variant: how many there are, the lowest and highest accuracy, the deviation."""
    pooled: dict[object, list[float]] = {}
    for variant, of_one in scores.items():
        pooled.setdefault(variant[place], []).extend(of_one)
    means = [statistics.fmean(of_one) for of_one in pooled.values()]
    several = len(means) > 1
    return {
        name: len(means),
        f"lowest_of_{name}": min(means) if several else None,
        f"highest_of_{name}": max(means) if several else None,
        f"sd_between_{name}": statistics.stdev(means) if several else None,
    }
