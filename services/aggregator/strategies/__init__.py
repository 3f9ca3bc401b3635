"""The tables of strategies. A new one is a file here and a line below."""

from __future__ import annotations

from schemas.errors import UnknownStrategy
from services.aggregator.strategies.ballot import Ballot, Strategy, StrategyContext
from services.aggregator.strategies.best_single import best_single
from services.aggregator.strategies.isp import isp
from services.aggregator.strategies.majority import majority
from services.aggregator.strategies.ow_l import ow_l
from services.aggregator.strategies.topic import topic
from services.aggregator.strategies.weighted import weighted

__all__ = ["KNOWN", "OFFLINE", "TABLE", "Ballot", "Strategy", "StrategyContext", "get"]

TABLE: dict[str, Strategy] = {
    "majority": majority,
    "weighted": weighted,
}

OFFLINE: dict[str, Strategy] = {
    "best_single": best_single,
    "isp": isp,
    "ow_l": ow_l,
    "topic": topic,
}
"""What re-aggregation of kept answers can use beside; a request cannot name them until the mesh keeps
what they need: agreement, histories by topic, several samples of one agent."""

KNOWN: tuple[str, ...] = tuple(TABLE)


def get(name: str) -> Strategy:
    """The strategy of that name; UnknownStrategy, with the names that a request can use, if it has none."""
    try:
        return TABLE[name]
    except KeyError:
        raise UnknownStrategy(
            f"there is no strategy {name!r}; known are: {', '.join(KNOWN)}", field="strategies", known=KNOWN
        ) from None
