"""The context of a running service: its connection, storage and clock, its events and traces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.client import Client

from services.chassis.identity import Identity
from services.chassis.nats.clock import BrokerClock
from services.chassis.nats.connecting.deafness import reconnect_when_deaf
from services.chassis.nats.connecting.late_pong import hear_late_pongs
from services.chassis.nats.connection import ConnectionEvents
from services.chassis.nats.streams import Storage
from services.chassis.process.supervise import Loops
from services.chassis.registry.cordon import OwnCordon
from services.chassis.settings import EventsSection
from services.chassis.telemetry.events import EventLog, Spans
from services.chassis.telemetry.tracing import Tracing
from services.chassis.work.attempts import Solitude


class ServiceContext:
    """What a running service has in hand."""

    def __init__(
        self,
        client: Client,
        identity: Identity,
        connection: ConnectionEvents,
        events: EventsSection | None = None,
        spans: Spans | None = None,
        loops: Loops | None = None,
    ) -> None:
        hear_late_pongs(client)
        reconnect_when_deaf(client)
        self.client = client
        self.identity = identity
        self.connection = connection
        self.storage = Storage(client)
        self.loops = loops or Loops()
        self.solitude = Solitude()
        self.clock = BrokerClock(client)
        self.cordon = OwnCordon(client, identity)
        self.tracing = Tracing()
        enabled = events is None or events.enabled
        self.events = EventLog(client, identity, enabled=enabled, spans=spans)
        self._renew: Callable[[], None] | None = None
        self._renew_lease: Callable[[], Awaitable[None]] | None = None

    def on_change(self, renew: Callable[[], None], renew_now: Callable[[], Awaitable[None]]) -> None:
        """Says how a change reaches the lease at once; for the host, when there is a lease."""
        self._renew, self._renew_lease = renew, renew_now

    def changed(self) -> None:
        """What the service says in its lease has changed: it is told now, not at the next renewal."""
        if self._renew is not None:
            self._renew()

    async def renew_lease(self) -> None:
        """changed() for what must be known before the service goes on: returns when the lease is put."""
        if self._renew_lease is not None:
            await self._renew_lease()
