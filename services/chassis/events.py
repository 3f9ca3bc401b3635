"""Publishing facts: fire and forget on subjects that the EVENTS stream captures."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client

from schemas import subjects
from schemas.events import AnyEvent, Event
from services.chassis.identity import Identity, new_id
from services.chassis.logs import get_logger

EventT = TypeVar("EventT", bound=Event)

log = get_logger("chassis.events")


class EventLog:
    """Says what happened in one service instance."""

    def __init__(self, client: Client, identity: Identity) -> None:
        self._client = client
        self._identity = identity

    async def publish(self, kind: type[EventT], **fields: Any) -> None:
        """Publishes an event of `kind`; an event that cannot be sent now is dropped, and the log says so."""
        event = kind(
            event_id=new_id(),
            at_s=time.time(),
            service=self._identity.service,
            instance=self._identity.instance,
            **fields,
        )
        subject = subjects.event(self._identity.service, _kind_of(event))
        try:
            await self._client.publish(subject, event.to_bytes())
        except nats.errors.Error as error:
            log.warning("event dropped", kind=_kind_of(event), why=str(error))


def _kind_of(event: Event) -> str:
    kind: AnyEvent = event  # type: ignore[assignment]
    return kind.kind
