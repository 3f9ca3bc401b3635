"""The strategies that an ensemble can be decided by: their names, and what each has the agents asked.

The functions themselves are the aggregator's (`services/aggregator/strategies`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Asks = Literal[
    "second_round",
    "predictions",
    "probabilities",
    "samples",
    "synthesis",
    "own_synthesis",
    "comparisons",
    "vectors",
]
"""What an agent is asked beyond the question: to answer again, knowing the others' answers (only where they
differ); what most others will say; how probable each option is; the same once more under other seeds; to
write one answer from all, or from its own samples; which of two others' answers is better; the vectors of
what was said."""


@dataclass(frozen=True)
class StrategySpec:
    """One strategy: `asks` is asked only where it is requested; `closed_only` needs the options of a
    closed question. Where nothing has been learnt it decides as the majority does. Of one that `cascades` it
    can be proven, from some of the answers, that the others would not change its decision. One that `votes`
    chooses an answer; the others make a text."""

    name: str
    why: str
    asks: frozenset[Asks] = frozenset()
    closed_only: bool = False
    cascades: bool = False
    votes: bool = True


SPECS: tuple[StrategySpec, ...] = (
    StrategySpec("majority", "one agent, one vote", cascades=True),
    StrategySpec("weighted", "log-odds of each agent's accuracy", cascades=True),
    StrategySpec("topic", "the same, on this topic", cascades=True),
    StrategySpec("isp", "inverse surprising popularity", cascades=True),
    StrategySpec("isp_elicited", "more popular than predicted", asks=frozenset({"predictions"})),
    StrategySpec("ow_l", "log-odds of accuracies fitted to agreement", cascades=True),
    StrategySpec("ow_i", "log-odds of agreement with isp's decisions", cascades=True),
    StrategySpec("dawid_skene", "likeliest under each agent's errors", cascades=True),
    StrategySpec("debate", "majority after a second round", asks=frozenset({"second_round"})),
    StrategySpec(
        "average",
        "mean of the agents' option probabilities",
        asks=frozenset({"probabilities"}),
        closed_only=True,
    ),
    StrategySpec("best_single", "the best agent alone, sampled", asks=frozenset({"samples"})),
    StrategySpec("auto", "whom the topic needs: the best agent, or a vote"),
    StrategySpec("rank", "the answer that most comparisons prefer", asks=frozenset({"comparisons"})),
    StrategySpec("nearest", "the answer nearest in meaning to the others", asks=frozenset({"vectors"})),
    StrategySpec("synthesize", "one answer written from all", asks=frozenset({"synthesis"}), votes=False),
    StrategySpec(
        "synthesize_samples",
        "one answer that the best agent writes from its own",
        asks=frozenset({"samples", "own_synthesis"}),
        votes=False,
    ),
    StrategySpec("concat", "all texts, one after another", votes=False),
)

AUTO = "auto"
"""A strategy that a router makes another one of, before anybody is asked."""
STRATEGIES: tuple[str, ...] = tuple(spec.name for spec in SPECS)


def specs_of(names: tuple[str, ...]) -> tuple[StrategySpec, ...]:
    """The specs of those of `names` that there are."""
    return tuple(spec for spec in SPECS if spec.name in names)


def asked_for(names: tuple[str, ...]) -> frozenset[Asks]:
    """What strategies of these names have the agents asked beyond the question, all together."""
    return frozenset[Asks]().union(*(spec.asks for spec in specs_of(names)))
