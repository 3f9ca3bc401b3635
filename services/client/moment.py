"""Moments as people type them: `30m`, `2h`, `7d` ago, or a date. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from schemas.errors import InvalidRequest

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, now: datetime, field: str) -> datetime:
    """`2h` is two hours ago; anything else has to be ISO 8601, in UTC unless it says otherwise."""
    try:
        if (ago := _AGO.fullmatch(text)) is not None:
            return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{field}: {text!r} is no time; say 30m, 2h, 7d, or a moment such as 2026-01-31T12:00",
            field=field,
        ) from error


def span_s(text: str, field: str) -> float:
    """A length of time in seconds: `30m`, `12h`, `90d`."""
    if (said := _AGO.fullmatch(text)) is None:
        raise InvalidRequest(f"{field}: {text!r} is no length of time; say 30m, 12h or 90d", field=field)
    return timedelta(**{_UNITS[said[2]]: float(said[1])}).total_seconds()


def as_sql(moment: datetime) -> str:
    """A moment as the event database reads it."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")
