"""Vote weighted by each agent's accuracy on the question's topic.

The weights are those of `weighted`; the accuracy on the topic is shrunk towards the agent's overall
accuracy x, the more so the less it has been asked on the topic: the posterior mean under a beta prior
that has the mean x and weighs as much as m questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally
from services.aggregator.strategies.log_odds import never_certain, vote_by_accuracy

SHRINKAGE = 10.0
"""m: how many questions of the topic weigh as much as all that is known of the agent beside it."""


def topic(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """Every agent that has an answer votes with the log-odds of its accuracy on this topic.

    For an agent that was never asked on the topic that is its overall accuracy, so without any topic
    history the decision is that of `weighted`, and without any history at all the majority's.
    """
    known = topic_accuracies([ballot.agent for ballot in ballots], context.options_for(ballots), context)
    return vote_by_accuracy("topic", ballots, known, context)


def topic_accuracies(agents: Iterable[str], options: int, context: StrategyContext) -> dict[str, float]:
    """The accuracy of each agent on this topic."""
    return {
        agent: never_certain(
            topic_accuracy(
                context.topic_history_of(agent), smoothed_accuracy(context.history_of(agent), options)
            )
        )
        for agent in agents
    }


def topic_accuracy(on_topic: AgentHistory, overall: float) -> float:
    """`(c + m x) / (n + m)`: c of n right on the topic, x the agent's overall accuracy."""
    return (on_topic.correct + SHRINKAGE * overall) / (on_topic.asked + SHRINKAGE)
