"""The cheapest way that is expected to be as good: one agent, samples of it, a cascade or all, by topic.

What is expected comes from feedback alone: how often each agent was right on the topic. The vote of all is
expected to be right where the weights of who is right outweigh those of all who err together, as if they gave
one wrong answer (a weighted majority of two answers, Nitzan and Paroush 1982): agents that err apart do
better than that, so a vote is chosen where it is better even so. Nothing that is learnt says what samples of
one agent add, so they are drawn only where the request says how many.

A Gather by `auto` becomes one by the way that is chosen for it; its result tells which, and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.commands import Gather
from schemas.ensembles.effort import AutoChoice, Way
from schemas.ensembles.strategies import AUTO
from schemas.replies import Decision
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally, tie_break
from services.aggregator.strategies.log_odds import log_odds_weights, vote_by_accuracy
from services.aggregator.strategies.votes.topic import topic_accuracies

FEWEST_JUDGED = 10
"""Of how many answers of the best agent on the topic it must be known whether they were right: before that
all are asked, which also teaches most."""
LEAST_GAIN = 0.01
"""By how much a vote must be expected to be right more often than the best agent: a point of accuracy."""
STEPS = 64
"""In so many steps the greatest weight is counted."""


@dataclass(frozen=True)
class Chosen:
    """A way, the agents that it asks, and why: `alone` is how often `best` is expected to be right on the
    topic, `together` how often the vote of all is; None where too little is known."""

    way: Way
    members: tuple[str, ...]
    why: str
    best: str | None = None
    alone: float | None = None
    together: float | None = None


def auto(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The decision of the way that is chosen among those who have answered.

    Only the votes of the agents that it asks count. If these abstain it is decided as `topic` does.
    """
    chosen = choose_way([ballot.agent for ballot in ballots], context, sampled=bool(context.samples))
    asked = [ballot for ballot in ballots if ballot.agent in chosen.members]
    if chosen.way == "samples":
        asked += [ballot for ballot in context.samples if ballot.agent in chosen.members]
    if chosen.best is not None and chosen.way in ("single", "samples"):
        if any(ballot.answer is not None for ballot in asked):
            return tally("auto", asked, {chosen.best: 1.0}, context.seed, chosen.why)
        chosen = everybody([ballot.agent for ballot in ballots], f"{chosen.best} gave no answer")
    agents = [ballot.agent for ballot in ballots]
    known = topic_accuracies(agents, context.options_for(ballots), context)
    decision = vote_by_accuracy("auto", ballots, known, context)
    return decision._replace(note=chosen.why)


def choose_way(members: Sequence[str], context: StrategyContext, *, sampled: bool = False) -> Chosen:
    """Whom to ask, by what is known of the members. With `sampled` the best may be asked several times."""
    known = [member for member in members if _judged(member, context) >= FEWEST_JUDGED]
    if not known:
        return everybody(members, f"of no agent {FEWEST_JUDGED} answers on this topic were judged yet")
    options = context.options_for([Ballot(member, "", None) for member in members])
    accuracies = topic_accuracies(members, options, context)
    best = max(known, key=lambda member: (accuracies[member], tie_break(context.seed, member)))
    alone, together = accuracies[best], chance_of_vote(accuracies, options, context)
    said = f"{best} alone is expected to be right on {alone:.0%}, all together on at least {together:.0%}"
    if together - alone >= LEAST_GAIN:
        return Chosen("cascade", tuple(members), f"{said}: they vote", best, alone, together)
    tie = "a tie, and it is cheaper" if abs(together - alone) < LEAST_GAIN else "it is better"
    if sampled:
        return Chosen("samples", (best,), f"{said}: {tie}, sampled as often as asked", best, alone, together)
    return Chosen("single", (best,), f"{said}: {tie}", best, alone, together)


def everybody(members: Sequence[str], why: str) -> Chosen:
    """The way that is taken where there is no reason for another."""
    return Chosen("full", tuple(members), f"{why}: all are asked")


def _judged(member: str, context: StrategyContext) -> int:
    """How many answers of a member were judged: on the topic, or at all where the topic is not known."""
    return (context.topic_history_of(member) if context.topic else context.history_of(member)).asked


def chance_of_vote(accuracies: Mapping[str, float], options: int, context: StrategyContext) -> float:
    """How often a vote by log-odds is right if agents err at times of their own, and then all say the same.

    Weights are counted in steps, those of who errs rounded up; a tie is half right.
    """
    weights = {agent: max(0.0, w) for agent, w in log_odds_weights(accuracies, options, context).items()}
    unit = max(weights.values(), default=0.0) / STEPS
    if not unit:
        return 0.0
    leads = {0: 1.0}
    for agent, weight in weights.items():
        after: dict[int, float] = {}
        for lead, chance in leads.items():
            for step, part in (
                (math.floor(weight / unit), accuracies[agent]),
                (-math.ceil(weight / unit), 1 - accuracies[agent]),
            ):
                after[lead + step] = after.get(lead + step, 0.0) + chance * part
        leads = after
    ahead = math.fsum(chance for lead, chance in leads.items() if lead > 0)
    return ahead + leads.get(0, 0.0) / 2


def way_of(gather: Gather, context: StrategyContext) -> Chosen:
    """The way of a Gather by `auto`. An answer that may be undecided is that of all: one vote says little."""
    if gather.min_confidence is not None:
        return everybody(gather.members, "it has to be sure, and votes tell how sure it is")
    return choose_way(gather.members, context, sampled=(gather.samples or 1) > 1)


def on_its_way(gather: Gather, chosen: Chosen) -> Gather:
    """The Gather that asks so."""
    changed: dict[str, object] = {"members": chosen.members, "strategies": ("topic",)}
    if chosen.way == "samples":
        changed["strategies"] = ("best_single",)
    if chosen.way == "cascade":
        changed |= {"effort": "exact", "lots": gather.lots or gather.fingerprint}
    return gather.model_copy(update=changed)


def widened(gather: Gather, chosen: Chosen) -> Chosen:
    """Instead of one agent that gave no answer, all."""
    return everybody(gather.members, f"{chosen.best} gave no answer")


def auto_choice(chosen: Chosen, topic: str | None) -> AutoChoice:
    """What a result says of the choice."""
    return AutoChoice(
        way=chosen.way,
        why=chosen.why,
        topic=topic,
        best=chosen.best,
        alone=chosen.alone,
        together=chosen.together,
    )


def signed(decisions: tuple[Decision, ...], chosen: Chosen) -> tuple[Decision, ...]:
    """The decisions as those of `auto`."""
    return tuple(each.model_copy(update={"strategy": AUTO, "note": chosen.why}) for each in decisions)
