"""The bench of re-aggregation, and that a fixed run is decided as ever."""

from __future__ import annotations

from analysis.evaluation.contestants.reaggregation import reaggregate
from loadtest.bench.mesh.reaggregation import STRATEGIES, WAYS, digest, made_up

DIGEST = "55ab0c9011a863a94f4a0c99e22e45db2d7436126c44a56969cfe89e06f4e2e6"
"""Of the outcomes of 150 questions in two repetitions."""


def test_every_decision_on_a_fixed_run_is_what_it_always_was() -> None:
    kept = [each for repetition in range(2) for each in made_up(150, repetition=repetition)]
    outcomes = reaggregate(kept, WAYS, STRATEGIES, seed=42)
    assert len({outcome.contestant for outcome in outcomes}) == 26
    assert digest(outcomes) == DIGEST
