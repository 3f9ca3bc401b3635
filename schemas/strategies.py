"""The strategies that an ensemble can be decided by: their names, and what each has the agents asked.

The functions themselves are the aggregator's (`services/aggregator/strategies`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Asks = Literal["second_round", "predictions", "probabilities", "samples"]
"""What an agent is asked beyond the question: to answer again, knowing the others' answers (only where they
differ); what most others will say; how probable each option is; the same once more under other seeds."""


@dataclass(frozen=True)
class StrategySpec:
    """One strategy: `asks` is asked only where it is requested; `closed_only` needs the options of a
    closed question. Where nothing has been learnt it decides as the majority does."""

    name: str
    why: str
    asks: frozenset[Asks] = frozenset()
    closed_only: bool = False


SPECS: tuple[StrategySpec, ...] = (
    StrategySpec("majority", "one agent, one vote"),
    StrategySpec("weighted", "log-odds of each agent's accuracy"),
    StrategySpec("topic", "the same, on this topic"),
    StrategySpec("isp", "inverse surprising popularity"),
    StrategySpec("isp_elicited", "more popular than predicted", asks=frozenset({"predictions"})),
    StrategySpec("ow_l", "log-odds of accuracies fitted to agreement"),
    StrategySpec("ow_i", "log-odds of agreement with isp's decisions"),
    StrategySpec("dawid_skene", "likeliest under each agent's errors"),
    StrategySpec("debate", "majority after a second round", asks=frozenset({"second_round"})),
    StrategySpec(
        "average",
        "mean of the agents' option probabilities",
        asks=frozenset({"probabilities"}),
        closed_only=True,
    ),
    StrategySpec("best_single", "the best agent alone, sampled", asks=frozenset({"samples"})),
    StrategySpec("concat", "all texts, one after another"),
)

STRATEGIES: tuple[str, ...] = tuple(spec.name for spec in SPECS)


def specs_of(names: tuple[str, ...]) -> tuple[StrategySpec, ...]:
    """The specs of those of `names` that there are."""
    return tuple(spec for spec in SPECS if spec.name in names)


def asked_for(names: tuple[str, ...]) -> frozenset[Asks]:
    """What strategies of these names have the agents asked beyond the question, all together."""
    return frozenset[Asks]().union(*(spec.asks for spec in specs_of(names)))
