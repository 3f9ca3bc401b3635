"""Strategies: pure functions from ballots to a decision, each a file, and a line in `SPECS` of `schemas`.

The line says what the strategy has the agents asked; its file, in any of the wings, has the name of the
strategy, and in it the function of that name. To decide kept answers again:

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

from importlib import import_module
from pkgutil import walk_packages
from typing import cast

from schemas.ensembles.strategies import SPECS, STRATEGIES, Asks, StrategySpec, asked_for
from schemas.errors import UnknownStrategy
from services.aggregator.strategies.ballot import Ballot, Ballots, Strategy, StrategyContext

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


MODULES = {found.name.rpartition(".")[2]: found.name for found in walk_packages(__path__, f"{__name__}.")}
"""The file of each strategy, by its name."""


def _decides_as(name: str) -> Strategy:
    return cast(Strategy, getattr(import_module(MODULES[name]), name))


TABLE: dict[str, Strategy] = {name: _decides_as(name) for name in STRATEGIES}
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
