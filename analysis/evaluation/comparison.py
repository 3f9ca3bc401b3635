"""Compares contestants: strategies among themselves and with the best agent, question by question.

Exact McNemar is the primary test, its p adjusted after Holm over all pairs of a benchmark. A difference
that is smaller than the smallest that so many questions could show is called tied, whatever its p.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from analysis.evaluation.baselines import BEST_AGENT, SELF_CONSISTENCY
from analysis.evaluation.replay import BEST_SINGLE
from analysis.evaluation.scores import Contestant, Field
from analysis.evaluation.summary import smallest_difference
from analysis.statistics.effects import cliffs_delta, matched_pairs_rank_biserial
from analysis.statistics.power import ALPHA, observed_discordance, questions_needed
from analysis.statistics.resampling import bca_columns, sign_flip_columns
from analysis.statistics.significance import cochrans_q, holm, mcnemar, paired_t, wilcoxon

Row = dict[str, Any]
Pair = tuple[Contestant, Contestant]
Verdict = Literal["better", "worse", "tied", "not shown"]

COMPARED_BASELINES = (BEST_AGENT, BEST_SINGLE, SELF_CONSISTENCY)
ALL_STRATEGIES = "(all strategies)"


def significance_rows(field: Field, seed: int) -> list[Row]:
    """A row for each pair, and one for all strategies together (Cochran's Q) where there are several."""
    pairs = compared(field)
    rows = _omnibus(field)
    if not pairs:
        return rows
    differences = np.column_stack([one.means - other.means for one, other in pairs])
    intervals = bca_columns(differences, seed=seed).tolist()
    permuted = sign_flip_columns(differences, seed=seed).tolist()
    primary = [mcnemar(one.mostly_right, other.mostly_right).p for one, other in pairs]
    adjusted = holm(primary)
    return rows + [
        _row(field, pair, interval, p_permuted, p, p_adjusted)
        for pair, interval, p_permuted, p, p_adjusted in zip(
            pairs, intervals, permuted, primary, adjusted, strict=True
        )
    ]


def compared(field: Field) -> list[Pair]:
    """Every two strategies, and every strategy with the baselines that are worth a test."""
    strategies = field.of("strategy")
    baselines = [found for name in COMPARED_BASELINES if (found := field.named(name)) is not None]
    against = [(one, other) for other in baselines for one in strategies]
    return [*combinations(strategies, 2), *against]


def _row(
    field: Field,
    pair: Pair,
    interval: Sequence[float],
    p_permuted: float,
    p_mcnemar: float,
    p_adjusted: float,
) -> Row:
    one, other = pair
    difference = float((one.means - other.means).mean())
    t, ranks = paired_t(one.means, other.means), wilcoxon(one.means, other.means)
    discordance = observed_discordance(one.mostly_right, other.mostly_right)
    smallest = smallest_difference(one, other)
    return {
        "benchmark": field.benchmark,
        "one": one.name,
        "other": other.name,
        "n_questions": field.n_questions,
        "accuracy_one": float(one.means.mean()),
        "accuracy_other": float(other.means.mean()),
        "difference": difference,
        "bca_low": interval[0],
        "bca_high": interval[1],
        "only_one_right": int(np.sum(one.mostly_right & ~other.mostly_right)),
        "only_other_right": int(np.sum(other.mostly_right & ~one.mostly_right)),
        "discordance": discordance,
        "mcnemar_p": p_mcnemar,
        "mcnemar_p_holm": p_adjusted,
        "permutation_p": p_permuted,
        "t": t.statistic,
        "t_p": t.p,
        "wilcoxon": ranks.statistic,
        "wilcoxon_p": ranks.p,
        "cochrans_q": None,
        "cochrans_q_p": None,
        "cliffs_delta": cliffs_delta(one.means, other.means).value,
        "rank_biserial": matched_pairs_rank_biserial(one.means, other.means).value,
        "smallest_difference": smallest,
        "questions_needed": _needed(difference, discordance),
        "verdict": verdict(difference, smallest, p_adjusted),
        "note": t.note,
    }


def verdict(difference: float, smallest: float | None, p_adjusted: float) -> Verdict:
    """`tied` if the difference is within what could not have been seen; else what the test says of it."""
    if smallest is None or abs(difference) < smallest:
        return "tied"
    if p_adjusted > ALPHA:
        return "not shown"
    return "better" if difference > 0 else "worse"


def _needed(difference: float, discordance: float) -> int | None:
    """How many questions would show a difference like this one; None where none would."""
    if difference == 0 or abs(difference) > discordance:
        return None
    return questions_needed(difference, discordance)


def _omnibus(field: Field) -> list[Row]:
    strategies = field.of("strategy")
    if len(strategies) < 2:
        return []
    found = cochrans_q([each.mostly_right for each in strategies])
    return [
        {
            "benchmark": field.benchmark,
            "one": ALL_STRATEGIES,
            "other": f"{len(strategies)} of them",
            "n_questions": field.n_questions,
            "cochrans_q": found.statistic,
            "cochrans_q_p": found.p,
            "note": found.note,
        }
    ]
