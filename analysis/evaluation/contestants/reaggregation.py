"""From kept answers to what every contestant made of every question: pure, and no model is asked."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.baselines import baseline_outcomes
from analysis.evaluation.contestants.batch import batch_outcomes
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.replay import strategy_outcomes
from analysis.evaluation.contestants.routers import router_outcomes
from analysis.evaluation.scoring.reading import read_run


def reaggregate(
    exchanges: Iterable[Exchange], ways: Mapping[str, str], strategies: Sequence[str], seed: int
) -> list[Outcome]:
    """The outcomes of the strategies and of all baselines; `ways` is how answers are read, by benchmark."""
    with _without_collection():
        asked = read_run(exchanges, ways)
        outcomes = [
            *strategy_outcomes(asked, strategies),
            *baseline_outcomes(asked, seed, strategies),
            *router_outcomes(asked, seed),
            *batch_outcomes(asked, strategies),
        ]
        cached = {each.key for each in asked if each.exchange.from_cache}
        return [_of_cache(each, cached) for each in outcomes] if cached else outcomes


def _of_cache(outcome: Outcome, cached: Set[tuple[str, str, int]]) -> Outcome:
    """An outcome of answers that were timed in an earlier run, under the load of that one, has no latency."""
    if (outcome.benchmark, outcome.question_id, outcome.repetition) not in cached:
        return outcome
    return outcome._replace(latency_s=None, cached=True)


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
