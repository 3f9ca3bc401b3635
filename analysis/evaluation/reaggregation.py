"""From kept answers to what every contestant made of every question: pure, and no model is asked."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from analysis.evaluation.baselines import baseline_outcomes
from analysis.evaluation.batch import batch_outcomes
from analysis.evaluation.exchange import Exchange
from analysis.evaluation.outcome import Outcome
from analysis.evaluation.reading import read_run
from analysis.evaluation.replay import strategy_outcomes
from analysis.evaluation.routers import router_outcomes


def reaggregate(
    exchanges: Iterable[Exchange], ways: Mapping[str, str], strategies: Sequence[str], seed: int
) -> list[Outcome]:
    """The outcomes of the strategies and of all baselines; `ways` is how answers are read, by benchmark."""
    with _without_collection():
        asked = read_run(exchanges, ways)
        return [
            *strategy_outcomes(asked, strategies),
            *baseline_outcomes(asked, seed, strategies),
            *router_outcomes(asked, seed),
            *batch_outcomes(asked, strategies),
        ]


@contextmanager
def _without_collection() -> Iterator[None]:
    """No search for cyclic garbage: there is none, and looking for it takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
