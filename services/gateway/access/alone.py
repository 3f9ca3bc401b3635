"""Whether a gateway counts for itself what keys use: for a while after the mesh could not say it.

So it is where the broker's host has an older Choir, which has no place for that.
"""

from __future__ import annotations

import time

from schemas.errors import BrokerUnavailable
from services.chassis.logs import get_logger

ALONE_S = 60.0

log = get_logger("gateway.keys")


class Alone:
    """Of one kind of thing that is counted, such as `tokens`: true while it is counted here alone."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._until_s = 0.0

    def __bool__(self) -> bool:
        return time.monotonic() < self._until_s

    def begin(self, error: BrokerUnavailable) -> None:
        """For a minute nobody waits for what the mesh cannot say."""
        self._until_s = time.monotonic() + ALONE_S
        log.warning(f"the {self._what} of keys are counted by this gateway alone", why=error.message)
