"""Publishing facts: fire and forget on subjects that the EVENTS stream captures."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.nuid import NUID

from schemas import subjects
from schemas.events import Event
from services.chassis.identity import Identity
from services.chassis.logs import get_logger

LINGER_S = 0.02

log = get_logger("chassis.events")


class EventLog:
    """Says what happened in one service instance.

    Facts are noted at once and published a moment later, together, so that they cost no request its time.
    """

    def __init__(self, client: Client, identity: Identity) -> None:
        self._client = client
        self._identity = identity
        self._ids = NUID()
        self._noted: list[tuple[float, type[Event], dict[str, Any]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    def publish(self, kind: type[Event], **fields: Any) -> None:
        """Notes that an event of `kind` has happened now."""
        self._noted.append((time.time(), kind, fields))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        self._flushing = asyncio.create_task(self.flush(), name="events")

    async def flush(self) -> None:
        """Publishes what was noted; an event that cannot be sent now is dropped, and the log says so."""
        noted, self._noted = self._noted, []
        for at_s, kind, fields in noted:
            event = kind(
                event_id=self._ids.next().decode(),
                at_s=at_s,
                service=self._identity.service,
                instance=self._identity.instance,
                host=self._identity.host,
                **fields,
            )
            subject = subjects.event(self._identity.service, event.kind)
            try:
                await self._client.publish(subject, event.to_bytes())
            except nats.errors.Error as error:
                log.warning("event dropped", kind=event.kind, why=str(error))
