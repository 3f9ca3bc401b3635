"""The baselines that ask one agent by the question's topic: what choosing alone gives, without any vote.

| baseline | whom it asks |
|---|---|
| `router` | the agent that was best on the topic in the other folds (see `crossfit`); on a topic that is in
none of them, the best on the benchmark |
| `router_online` | the agent that `topic` would trust most, by the very history that `topic` has before the
question |
| `topic_best` | the agent that is best on the topic by these very questions: a bound that nobody can have,
since it has seen the answers |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from analysis.evaluation.contestants.baselines import alone
from analysis.evaluation.contestants.crossfit import best_agents, best_on_topics
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.scoring.reading import Asked, Reply
from services.aggregator.decide import options_of
from services.aggregator.scores.history import NO_HISTORY, History
from services.aggregator.scores.learning import learn_label
from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import FEWEST_OPTIONS
from services.aggregator.strategies.votes.topic import topic_accuracy

ROUTER = "router"
ROUTER_ONLINE = "router_online"
TOPIC_BEST = "topic_best"

_DECIMALS = 12
"""Accuracies that are equal but for rounding are equal."""


def router_outcomes(asked: Sequence[Asked], seed: int) -> Iterator[Outcome]:
    """What each router made of each question; `asked` is in the order of the plan."""
    best, on_topics = best_agents(asked, seed), best_on_topics(asked, seed)
    seen = best_on_topics(asked, seed, held_out=False)
    histories: dict[tuple[str, int], History] = {}
    for each in asked:
        kept = each.exchange
        history = histories.setdefault((kept.benchmark, kept.repetition), History())
        yield _of(ROUTER, each, (on_topics.get(each.unit, best[each.unit]),))
        yield _of(ROUTER_ONLINE, each, most_trusted(each, history))
        yield _of(TOPIC_BEST, each, (seen[each.unit],))
        learn_label(history, each.ballots.first, kept.right, kept.topic)


def most_trusted(asked: Asked, history: History) -> tuple[str, ...]:
    """The agents with the greatest accuracy on the topic as `topic` estimates it: several as long as nobody
    has shown more than another."""
    kept = asked.exchange
    options = options_of(kept.kind, kept.choices) or max(FEWEST_OPTIONS, len(asked.replies) + 1)
    on_topic = history.topics.get(kept.topic, {})
    trusted = {
        reply.agent: round(
            topic_accuracy(
                on_topic.get(reply.agent, NO_HISTORY),
                smoothed_accuracy(history.agents.get(reply.agent, NO_HISTORY), options),
            ),
            _DECIMALS,
        )
        for reply in asked.replies
    }
    return tuple(agent for agent in sorted(trusted) if trusted[agent] == max(trusted.values()))


def _of(name: str, asked: Asked, agents: Sequence[str]) -> Outcome:
    """The answer of the first of these agents; scored with its expected value over a lot among them."""
    replies: Mapping[str, Reply] = {reply.agent: reply for reply in asked.replies}
    made = alone(name, "baseline", asked, replies[agents[0]])
    expected = sum(replies[agent].right for agent in agents) / len(agents)
    return made._replace(expected=expected, tie=len(agents) > 1)
