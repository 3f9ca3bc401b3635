"""Statements that could not be cut off: whose they were, kept over the end of the process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from services.chassis.logs import get_logger

FILE_NAME = "ended-by-statements.json"
TOLD_S = 3600.0
"""So long the lease tells of it."""

log = get_logger("metrics.stuck")


class StuckStatements:
    """When the statements of which tenants last ended this service. `folder` is the service's own."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._path = folder / FILE_NAME
        self._now = now
        self._ended_at_s = self._read()

    def note(self, tenant: str) -> None:
        """The process ends now, for a statement of this tenant. What cannot be written is not known later."""
        self._ended_at_s[tenant] = self._now()
        try:
            self._path.write_text(json.dumps(self._ended_at_s), encoding="utf-8")
        except OSError as error:
            log.warning("not noted", tenant=tenant, why=str(error))

    @property
    def problem(self) -> str | None:
        """What the lease tells of it."""
        ends = ((at_s, tenant) for tenant, at_s in self._ended_at_s.items() if at_s > self._now() - TOLD_S)
        if (last := max(ends, default=None)) is None:
            return None
        at = time.strftime("%H:%M:%S", time.gmtime(last[0]))
        return (
            f"a statement of the tenant {last[1]} could not be cut off and ended this service at {at} UTC; "
            "it was started again, and no event was lost"
        )

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(tenant): float(at_s) for tenant, at_s in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("unreadable, left out", file=str(self._path), why=str(error))
            return {}
