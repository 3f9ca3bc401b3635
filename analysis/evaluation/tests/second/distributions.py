"""Normal, t, chi-squared and fair coins, by integrals and sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


def normal_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


@cache
def normal_quantile(p: float) -> float:
    return _where(lambda z: 1 - normal_tail(z), p, -12.0, 12.0)


def t_tail(t: float, df: int) -> float:
    """P(T > t): with t = sqrt(df) tan(a) the density becomes a power of the cosine."""
    low, high = math.atan(t / math.sqrt(df)), math.pi / 2
    angles = (high - low) / 2 * _NODES + (high + low) / 2
    area = (high - low) / 2 * float(np.sum(_WEIGHTS * np.cos(angles) ** (df - 1)))
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(math.pi) / 2
    return area * math.exp(log_scale)


@cache
def t_quantile(p: float, df: int) -> float:
    return _where(lambda t: 1 - t_tail(t, df), p, -1e4, 1e4)


def chi_squared_tail(x: float, df: int) -> float:
    half = x / 2
    if df % 2 == 0:
        return math.exp(-half) * sum(half**i / math.factorial(i) for i in range(df // 2))
    terms = math.fsum(half ** (j - 0.5) / math.gamma(j + 0.5) for j in range(1, (df - 1) // 2 + 1))
    return math.erfc(math.sqrt(half)) + math.exp(-half) * terms


def half_binomial_two_sided(one: int, other: int) -> float:
    """That of one + other fair coins so uneven a part or a more uneven one falls to either side."""
    n = one + other
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(one, other) + 1)) / 2**n) if n else 1.0


def _where(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a rising function has a value, by halving."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2
