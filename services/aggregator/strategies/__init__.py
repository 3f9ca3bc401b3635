"""Strategies: pure functions from ballots to a decision, each a file here and a line in `TABLE`.

A new one has a line in `schemas/strategies.py` too: what it has the agents asked. To decide kept answers
again:

    from services.aggregator.reading.ballots import read_ballots
    from services.aggregator.decide import Question, decide
    from services.aggregator.scores.history import History
    from services.aggregator.scores.learning import learn_answers, learn_label

    ballots = read_ballots(answers, kind, choices)           # answers of all rounds, in the members' order
    question = Question(seed="...", options=4, topic="capitals")
    decisions = decide(names, ballots, question, history)    # predict first ...
    learn_answers(history, ballots.first, question)          # ... update after: without labels,
    learn_label(history, ballots.first, "B", question.topic) # and with what was right, normalised
"""

from __future__ import annotations

from schemas.errors import UnknownStrategy
from schemas.strategies import SPECS, STRATEGIES, Asks, StrategySpec, asked_for
from services.aggregator.strategies.average import average
from services.aggregator.strategies.ballot import Ballot, Ballots, Strategy, StrategyContext
from services.aggregator.strategies.best_single import best_single
from services.aggregator.strategies.concat import concat
from services.aggregator.strategies.dawid_skene import dawid_skene
from services.aggregator.strategies.debate import debate
from services.aggregator.strategies.isp import isp
from services.aggregator.strategies.isp_elicited import isp_elicited
from services.aggregator.strategies.majority import majority
from services.aggregator.strategies.ow_i import ow_i
from services.aggregator.strategies.ow_l import ow_l
from services.aggregator.strategies.topic import topic
from services.aggregator.strategies.weighted import weighted

__all__ = [
    "SPECS",
    "STRATEGIES",
    "TABLE",
    "Asks",
    "Ballot",
    "Ballots",
    "Strategy",
    "StrategyContext",
    "StrategySpec",
    "asked_for",
    "get",
]

TABLE: dict[str, Strategy] = {
    "majority": majority,
    "weighted": weighted,
    "topic": topic,
    "isp": isp,
    "isp_elicited": isp_elicited,
    "ow_l": ow_l,
    "ow_i": ow_i,
    "dawid_skene": dawid_skene,
    "debate": debate,
    "average": average,
    "best_single": best_single,
    "concat": concat,
}
"""Every strategy by its name; what it has the agents asked and needs to know stands in `SPECS`."""


def get(name: str) -> Strategy:
    """The strategy of that name; UnknownStrategy, with the names that there are, if it has none."""
    try:
        return TABLE[name]
    except KeyError:
        raise UnknownStrategy(
            f"there is no strategy {name!r}; known are: {', '.join(TABLE)}",
            field="strategies",
            known=tuple(TABLE),
        ) from None
