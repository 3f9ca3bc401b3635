"""A message that a supervisor has stored every few seconds: while that works, the broker stores."""

from __future__ import annotations

import os

from nats.js import JetStreamContext

from schemas import subjects

CANARY_BYTES = 8_192
"""As much as needs a new block of the disk. The last block of a full one had room for 96 that were empty:
for eight minutes."""


async def store_canary(js: JetStreamContext) -> None:
    """Raises a nats.errors.Error where it is not stored."""
    await js.publish(subjects.CANARY, os.urandom(CANARY_BYTES))
