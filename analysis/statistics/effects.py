"""Sizes of effect: how large a difference is, whatever the number of questions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.checks import scores
from analysis.statistics.ranks import differences, signed_ranks
from analysis.statistics.results import Effect
from analysis.statistics.significance import NO_DIFFERENCE


def cliffs_delta(one: ArrayLike, other: ArrayLike) -> Effect:
    """`P(x > y) - P(x < y)` over all pairs of a value here and a value there (Cliff 1993).

    It does not look at which question a value belongs to, so the two may have different numbers of them;
    `n` is the smaller.
    """
    first, second = scores(one, "one"), np.sort(scores(other, "other"))
    below = np.searchsorted(second, first, side="left").sum()
    above = (second.size - np.searchsorted(second, first, side="right")).sum()
    return Effect(
        measure="Cliff's delta",
        value=float(below - above) / (first.size * second.size),
        n=int(min(first.size, second.size)),
    )


def matched_pairs_rank_biserial(one: ArrayLike, other: ArrayLike) -> Effect:
    """`(R+ - R-) / (R+ + R-)` over the signed ranks of the differences (King and Minium 2003; Kerby 2014).

    Ranked as in `wilcoxon`: zeros have ranks, and those are in neither sum (Pratt 1959).
    """
    ranks = signed_ranks(differences(one, other))
    for_one, for_other = float(ranks[ranks > 0].sum()), float(-ranks[ranks < 0].sum())
    measure = "matched-pairs rank biserial"
    if for_one + for_other == 0:
        return Effect(measure=measure, value=0.0, n=int(ranks.size), note=NO_DIFFERENCE)
    return Effect(
        measure=measure,
        value=(for_one - for_other) / (for_one + for_other),
        n=int(ranks.size),
    )
