"""How often agents are right, by what is known of them: smoothed, so that luck is not taken for skill."""

from __future__ import annotations

from collections.abc import Collection

from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies.ballot import StrategyContext, tie_break
from services.aggregator.strategies.log_odds import never_certain

SMOOTHING = 4.0
"""a: how many questions answered at chance are imagined before the real ones.

With 4, one right answer of four options gives an accuracy of 0.4: enough to break a tie, too little
for one lucky agent to outvote the others for long.
"""


def smoothed_accuracy(history: AgentHistory, options: int) -> float:
    """`(correct + a/K) / (asked + a)`, kept away from 0 and 1."""
    return never_certain((history.correct + SMOOTHING / options) / (history.asked + SMOOTHING))


def best_agent(agents: Collection[str], context: StrategyContext, options: int) -> str | None:
    """The agent with the greatest smoothed accuracy; of equals one by lot, whatever their order.

    Agents without any history are not chosen; None if there is no other.
    """
    known = {
        agent: smoothed_accuracy(context.history_of(agent), options)
        for agent in agents
        if context.history_of(agent).asked
    }
    greatest = max(known.values(), default=0.0)
    equals = [agent for agent, accuracy in known.items() if accuracy == greatest]
    return min(equals, key=lambda agent: tie_break(context.seed, agent), default=None)
