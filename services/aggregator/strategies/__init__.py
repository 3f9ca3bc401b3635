"""The table of strategies. A new one is a file here and a line below."""

from __future__ import annotations

from schemas.errors import UnknownStrategy
from services.aggregator.strategies.ballot import Ballot, Strategy, StrategyContext
from services.aggregator.strategies.majority import majority
from services.aggregator.strategies.weighted import weighted

__all__ = ["KNOWN", "TABLE", "Ballot", "Strategy", "StrategyContext", "get"]

TABLE: dict[str, Strategy] = {
    "majority": majority,
    "weighted": weighted,
}

KNOWN: tuple[str, ...] = tuple(TABLE)


def get(name: str) -> Strategy:
    """The strategy of that name; UnknownStrategy, with the names that there are, if it has none."""
    try:
        return TABLE[name]
    except KeyError:
        raise UnknownStrategy(
            f"there is no strategy {name!r}; known are: {', '.join(KNOWN)}", field="strategies", known=KNOWN
        ) from None
