"""The time that a report is about: `1h`, `30m`, `7d`, or a moment. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.errors import InvalidRequest
from services.client.moment import as_sql, moment

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400)
MOST_STEPS = 120


@dataclass(frozen=True)
class TimeSpan:
    """From `since` to just before `until`, both UTC."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()

    @property
    def step_s(self) -> float:
        """Steps for charts over time: a round number of seconds, and not too many steps."""
        return next((step for step in STEPS_S if self.seconds / step <= MOST_STEPS), STEPS_S[-1])

    @property
    def parameters(self) -> dict[str, str]:
        """As the queries take it."""
        return {"since": as_sql(self.since), "until": as_sql(self.until)}


def time_span(since: str, until: str | None, now: datetime) -> TimeSpan:
    """Reads two times; `until` is `now` if it is not given.

    Raises InvalidRequest, naming the field, for what is no time, and for an end that is not the later one.
    """
    end = now if until is None else moment(until, now, "until")
    begin = moment(since, now, "since")
    if begin >= end:
        raise InvalidRequest(f"since: {since} is not before {until or 'now'}", field="since")
    return TimeSpan(begin, end)
