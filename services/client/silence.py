"""Tells a person what a request waits for, while nobody answers."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

NOTICE_AFTER_S = 1.0
"""So long a restart of the router goes unmentioned."""

log = logging.getLogger("choir")
"""Python writes warnings to standard error unless a program says otherwise."""


class Silence:
    """What a client says of it: once, however many of its requests wait, until somebody answers again."""

    def __init__(self) -> None:
        self._told = False

    def lasts(self, since_s: float, left_s: float, *, connected: bool) -> None:
        """Nobody has answered since `since_s` (monotonic), and `left_s` more is waited for it."""
        if self._told or left_s <= 0 or time.monotonic() < since_s + NOTICE_AFTER_S:
            return
        self._told = True
        who = "no router answers yet" if connected else "the broker has gone"
        until = datetime.now() + timedelta(seconds=left_s)
        log.warning("%s; waiting until %s, Ctrl-C to stop", who, f"{until:%H:%M:%S}")

    def ends(self) -> None:
        """Somebody has answered."""
        self._told = False
