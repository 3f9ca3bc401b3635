"""Equivalence: whether two strategies are as good as one another, within a margin that was set beforehand.

That no difference was shown does not say that there is none: few questions show nothing. Here it is the
burden of whoever says "as good" to show it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.checks import Floats, scores, share
from analysis.statistics.resampling import sums_by_cluster
from analysis.statistics.results import Significance

MARGIN = 0.05
"""Five points of accuracy: two strategies that differ by less are as good as one another for whoever
chooses.
"""


def tost(
    differences: ArrayLike, margin: float = MARGIN, clusters: Sequence[Hashable] | None = None
) -> Significance:
    """Two one-sided t tests (Schuirmann 1987): p small says that the mean lies between -margin and margin.

    The greater of both p, with C-1 degrees of freedom over C clusters (questions, where none are given); the
    standard error is that of `clustered_mean`. p is never below `(1 - margin)^C`: so likely it is that C
    questions show no difference at all although one of the margin's size is there, since for that at least so
    great a part of them must differ. `statistic` is the t of the nearer bound.
    """
    values, bound = scores(differences, "differences"), share(margin, "margin")
    sums = _sums(values, clusters)
    count = int(sums.size)
    least = (1 - bound) ** count
    mean = float(values.mean())
    test = "TOST"
    if count == 1:
        return Significance(
            test=test, p=1.0, n=1, statistic=None, note="one cluster says nothing of the spread"
        )
    sizes = _sums(np.ones_like(values), clusters)
    error = math.sqrt(count / (count - 1) * float(np.square(sums - sizes * mean).sum())) / values.size
    distance = bound - abs(mean)
    if error == 0:
        return Significance(test=test, p=least if distance > 0 else 1.0, n=count, statistic=None)
    t = distance / error
    return Significance(test=test, p=max(least, float(stats.t.sf(t, count - 1))), n=count, statistic=t)


def _sums(values: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    return values if clusters is None else sums_by_cluster(values[:, None], clusters)[:, 0]
