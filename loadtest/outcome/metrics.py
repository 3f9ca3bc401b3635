"""The figures of a run: pure functions from measurements to milliseconds, and what each of them means.

Tools disagree about these names, so `METRICS` has the formula of each; it goes into every output. Except for
`e2e_intended` and `ttft_intended` times count from when a request was sent, as most tools have it. Where
the two differ, requests started late: the difference is what a measurement that waits for its server leaves
out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadtest.outcome.measurements import Column, Measurements

MS = 1000.0


@dataclass(frozen=True)
class Metric:
    """How to compute one figure of every answered request, in ms, and how that is said in a formula."""

    formula: str
    values: Callable[[Measurements], Column]


def ttft(m: Measurements) -> Column:
    """Time to first token."""
    return _known((m.first_s - m.sent_s) * MS)


def ttft_intended(m: Measurements) -> Column:
    """Time to first token for a user who came when the request was meant to start."""
    return _known((m.first_s - m.intended_s) * MS)


def e2e(m: Measurements) -> Column:
    """The whole request."""
    return _known((m.done_s - m.sent_s) * MS)


def e2e_intended(m: Measurements) -> Column:
    """The whole request for a user who came when it was meant to start."""
    return _known((m.done_s - m.intended_s) * MS)


def tpot(m: Measurements) -> Column:
    """Time per output token after the first."""
    several = m.tokens > 1
    return _known((m.done_s - m.first_s)[several] * MS / (m.tokens[several] - 1))


def itl(m: Measurements) -> Column:
    """Inter-token latency: all gaps of all requests in one pool."""
    return np.concatenate(m.gaps_ms) if len(m) else np.empty(0)


def lag(m: Measurements) -> Column:
    """How late requests were sent."""
    return np.asarray((m.sent_s - m.intended_s) * MS)


METRICS: dict[str, Metric] = {
    "ttft": Metric("first token - send", ttft),
    "ttft_intended": Metric("first token - intended start", ttft_intended),
    "tpot": Metric("(e2e - ttft) / (generated tokens - 1), over all answers of the request", tpot),
    "itl": Metric("every gap between two chunks of one answer, all requests pooled", itl),
    "e2e": Metric("result - send", e2e),
    "e2e_intended": Metric("result - intended start", e2e_intended),
    "lag": Metric("send - intended start (scheduling lag)", lag),
}


def _known(values: Column) -> Column:
    """Without those that there are not, such as the first token of a request that does not stream."""
    return np.asarray(values[~np.isnan(values)])


def milliseconds(value: float) -> str:
    """For people: three digits, however small: `1,234`, `123`, `12.3`, `0.041`; never 0 for what is more."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.1g}"
