"""Agents that err independently, as the theory of optimal weights has them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from services.aggregator.scores.agreement import Agreement, Pair

QUESTIONS = 10**9


def agreement_of_independent(accuracies: Mapping[str, float], options: int) -> dict[Pair, Agreement]:
    """How often agents agree that err independently, over so many questions that smoothing hardly matters."""
    rates = {
        frozenset((i, j)): x * y + (1 - x) * (1 - y) / (options - 1)
        for (i, x), (j, y) in combinations(accuracies.items(), 2)
    }
    return {pair: Agreement(agreed=round(rate * QUESTIONS), both=QUESTIONS) for pair, rate in rates.items()}
