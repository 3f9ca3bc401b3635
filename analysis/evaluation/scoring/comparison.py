"""Compares contestants: strategies among themselves and with the best agent, question by question.

The primary test flips the signs of the questions' mean differences, so it sees every repetition; its p is
adjusted after Holm over the pairs of a benchmark. A difference that it does not show is `tied` only where
equivalence was tested and shown (TOST, adjusted alike); otherwise it is `not resolved`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.scoring.families import Pair, compared, same_as, smallest_difference
from analysis.evaluation.scoring.scores import Contestant, Field
from analysis.statistics.checks import Floats
from analysis.statistics.effects import cliffs_delta, matched_pairs_rank_biserial
from analysis.statistics.equivalence import tost
from analysis.statistics.power import ALPHA, questions_needed, squared_difference
from analysis.statistics.resampling import bca_columns, sign_flip_columns
from analysis.statistics.significance import cochrans_q, holm, mcnemar, paired_t, wilcoxon

Row = dict[str, Any]
Verdict = Literal["better", "worse", "tied", "not resolved", "the same"]

ALL_STRATEGIES = "(all strategies)"
SAME: Verdict = "the same"
MOSTLY_ZEROS = 0.8
"""With more of the differences zero, Wilcoxon after Pratt hardly looks at sizes: it is close to a sign
test.
"""


class Tested(NamedTuple):
    """What was computed of all pairs at once, for one of them."""

    interval: Sequence[float]
    p: float
    p_holm: float
    equivalence_p: float
    equivalence_p_holm: float
    p_by_topic: float | None
    p_by_template: float | None


def significance_rows(field: Field, seed: int) -> list[Row]:
    """A row for each pair of the family, one for all strategies together (Cochran's Q) where there are
    several, and one for each strategy that is the same as another."""
    rows = _omnibus(field)
    pairs = compared(field)
    if pairs:
        tested = _tested(field, pairs, seed)
        rows += [_row(field, pair, found, len(pairs)) for pair, found in zip(pairs, tested, strict=True)]
    seen = seen_in_training({outcome.benchmark for outcome in field.contestants[0].outcomes})
    return [row | {"seen_in_training": seen} for row in (*rows, *_same(field))]


def _tested(field: Field, pairs: Sequence[Pair], seed: int) -> list[Tested]:
    differences = np.column_stack([one.means - other.means for one, other in pairs])
    flipped = sign_flip_columns(differences, seed=seed).tolist()
    equivalent = [tost(column).p for column in differences.T]
    first = field.contestants[0]
    return [
        Tested(*each)
        for each in zip(
            bca_columns(differences, seed=seed).tolist(),
            flipped,
            holm(flipped),
            equivalent,
            holm(equivalent),
            _by_cluster(differences, first.topics, seed),
            _by_cluster(differences, first.templates, seed),
            strict=True,
        )
    ]


def _by_cluster(differences: Floats, clusters: Sequence[str], seed: int) -> list[float | None]:
    """p where all questions of a cluster are one witness; None where that is all or each of them."""
    if len(set(clusters)) in (1, len(clusters)):
        return [None] * differences.shape[1]
    return [*sign_flip_columns(differences, seed=seed, clusters=clusters).tolist()]


def _row(field: Field, pair: Pair, tested: Tested, family: int) -> Row:
    one, other = pair
    differing = one.means - other.means
    difference = float(differing.mean())
    t, ranks = paired_t(one.means, other.means), wilcoxon(one.means, other.means)
    squared = squared_difference(one.means, other.means)
    return {
        "benchmark": field.benchmark,
        "one": one.name,
        "other": other.name,
        "n_questions": field.n_questions,
        "accuracy_one": float(one.means.mean()),
        "accuracy_other": float(other.means.mean()),
        "difference": difference,
        "bca_low": tested.interval[0],
        "bca_high": tested.interval[1],
        "one_better_on": int(np.sum(differing > 0)),
        "other_better_on": int(np.sum(differing < 0)),
        "squared_difference": squared,
        "permutation_p": tested.p,
        "permutation_p_holm": tested.p_holm,
        "family": family,
        "equivalence_p": tested.equivalence_p,
        "equivalence_p_holm": tested.equivalence_p_holm,
        "permutation_p_by_topic": tested.p_by_topic,
        "permutation_p_by_template": tested.p_by_template,
        "mcnemar_p": mcnemar(one.first_right, other.first_right).p,
        "t": t.statistic,
        "t_p": t.p,
        "wilcoxon": ranks.statistic,
        "wilcoxon_p": ranks.p,
        "cochrans_q": None,
        "cochrans_q_p": None,
        "cliffs_delta": cliffs_delta(one.means, other.means).value + 0.0,
        "rank_biserial": matched_pairs_rank_biserial(one.means, other.means).value + 0.0,
        "smallest_difference": smallest_difference(one, other, family),
        "questions_needed": _needed(difference, squared, family),
        "verdict": verdict(difference, tested.p_holm, tested.equivalence_p_holm),
        "note": "; ".join(filter(None, (t.note, _zeros(differing)))),
    }


def verdict(difference: float, p: float, equivalence_p: float) -> Verdict:
    """What the tests say, both adjusted over the family: of a difference, and of its being none that
    matters.
    """
    if p <= ALPHA:
        return "better" if difference > 0 else "worse"
    return "tied" if equivalence_p <= ALPHA else "not resolved"


def _needed(difference: float, squared: float, family: int) -> int | None:
    """How many questions would show a difference like this one; None where none would."""
    if difference == 0 or difference**2 > squared:
        return None
    return questions_needed(difference, squared, alpha=ALPHA / family)


def _zeros(differing: Floats) -> str:
    share = float(np.mean(differing == 0))
    return (
        f"{share:.0%} of the differences are zero: Wilcoxon is close to a sign test"
        if share > MOSTLY_ZEROS
        else ""
    )


def _omnibus(field: Field) -> list[Row]:
    same = same_as(field)
    strategies = [each for each in field.of("strategy") if each.name not in same]
    if len(strategies) < 2:
        return []
    found = cochrans_q([each.first_right for each in strategies])
    return [
        {
            "benchmark": field.benchmark,
            "one": ALL_STRATEGIES,
            "other": f"{len(strategies)} of them",
            "n_questions": field.n_questions,
            "cochrans_q": found.statistic,
            "cochrans_q_p": found.p,
            "note": "; ".join(filter(None, ("of the first repetition", found.note))),
        }
    ]


def _same(field: Field) -> list[Row]:
    return [
        {
            "benchmark": field.benchmark,
            "one": name,
            "other": other,
            "n_questions": field.n_questions,
            "verdict": SAME,
            "note": _why(field.named(name), other),
        }
        for name, other in same_as(field).items()
    ]


def _why(strategy: Contestant | None, other: str) -> str:
    count = 0 if strategy is None else sum(bool(outcome.fell_back) for outcome in strategy.outcomes)
    fell_back = f"; on {count} samples it had nothing but votes to go by" if count else ""
    return f"every decision is that of {other}: left out of the family{fell_back}"
