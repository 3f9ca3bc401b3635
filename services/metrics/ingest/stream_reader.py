"""Reads events in the order of the stream, without holes.

A durable consumer says what is new. What it does not say (it was delivered to a service that has died since,
or acknowledged before a database was lost) is read from the stream itself. So the database decides where
reading goes on, and an acknowledgement only ever says what is in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from schemas import subjects
from schemas.errors import BrokerUnavailable
from services.chassis.nats.connection import clustered
from services.chassis.nats.pull import PullSubscription
from services.chassis.nats.reading import get_many
from services.chassis.nats.streams import Storage
from services.metrics.ingest.stored_event import StoredEvent, from_delivery, from_stored

READ_TIMEOUT_S = 10.0
READ_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class StreamState:
    """The state of the EVENTS stream, from the broker."""

    created: str = ""
    first_sequence: int = 0
    last_sequence: int = 0


class StreamReader:
    """Reads EVENTS from a sequence on. `ahead` is how many events wait here at most."""

    def __init__(self, client: Client, ahead: int) -> None:
        self._client = client
        self._js = JetStreamContext(client, timeout=READ_TIMEOUT_S)
        self._storage = Storage(client)
        self._ahead = ahead
        self._subscription = PullSubscription(
            client, subjects.EVENTS_STREAM, subjects.EVENTS_CONSUMER, self._take
        )
        self._waiting: deque[Msg] = deque()
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._wanted = 1
        self._acknowledge: Msg | None = None

    @property
    def waiting(self) -> int:
        """How many events have come and were not taken yet."""
        return len(self._waiting)

    async def _take(self, msg: Msg) -> None:
        self._waiting.append(msg)
        self._arrived.set()
        if len(self._waiting) >= self._wanted:
            self._enough.set()

    async def take(self, sequence: int, count: int, patience_s: float, linger_s: float) -> list[StoredEvent]:
        """Up to `count` events from `sequence` on.

        Waits up to `patience_s` for the first of them, then up to `linger_s` for more. Empty if none came.
        Raises BrokerUnavailable if a hole cannot be filled now; nothing is lost by asking again.
        """
        await self._ask()
        await self._wait(count, patience_s, linger_s)
        return await self._next(sequence, count)

    async def _wait(self, count: int, patience_s: float, linger_s: float) -> None:
        self._wanted = count
        try:
            if not self._waiting:
                self._arrived.clear()
                async with asyncio.timeout(patience_s):
                    await self._arrived.wait()
            if len(self._waiting) < count:
                self._enough.clear()
                async with asyncio.timeout(linger_s):
                    await self._enough.wait()
        except TimeoutError:
            return

    async def _next(self, sequence: int, count: int) -> list[StoredEvent]:
        events: list[StoredEvent] = []
        while self._waiting and len(events) < count:
            msg = self._waiting[0]
            event = from_delivery(msg)
            if event.sequence > sequence:
                missing = await self.read(sequence, min(event.sequence - sequence, count - len(events)))
                events += missing
                sequence = missing[-1].sequence + 1 if missing else event.sequence
                continue
            self._waiting.popleft()
            self._acknowledge = msg
            if event.sequence == sequence:
                events.append(event)
                sequence += 1
        return events

    async def _ask(self) -> None:
        """Keeps so much demand with the broker that nobody waits for a round trip."""
        self._subscription.reset_if_overdue()
        room = self._ahead - self._subscription.in_flight - len(self._waiting)
        if room >= self._ahead // 2:
            await self._subscription.pull(room)

    async def acknowledge(self) -> None:
        """Tells the broker that everything that was taken is in the database."""
        msg, self._acknowledge = self._acknowledge, None
        if msg is not None:
            await msg.ack()

    def nudge(self) -> None:
        """Ends the wait in `take` at once."""
        self._arrived.set()
        self._enough.set()

    def reset(self) -> None:
        """The broker has been away: it knows nothing of our subscription, and delivers again what we hold."""
        self._subscription.reset()
        self._waiting.clear()
        self._acknowledge = None

    def stop(self) -> None:
        """Asks for nothing more."""
        self._subscription.cancel()

    async def state(self) -> StreamState:
        """The present state of the stream. Raises BrokerUnavailable."""
        try:
            info = await self._js.stream_info(subjects.EVENTS_STREAM)
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise BrokerUnavailable(f"stream {subjects.EVENTS_STREAM} could not be read") from error
        created = "" if info.created is None else info.created.isoformat()
        return StreamState(created, info.state.first_seq, info.state.last_seq)

    async def read(self, first: int, count: int) -> list[StoredEvent]:
        """The next events that the stream holds from `first` on, at most `count`. Raises BrokerUnavailable.

        Fewer come if there are no more, or if they are large. None come only where the leader has none: a
        copy of the stream on another server may be a moment behind.
        """
        query = {"seq": first, "batch": count, "max_bytes": READ_BYTES, "next_by_subj": subjects.ALL_EVENTS}
        found = await get_many(self._client, subjects.EVENTS_STREAM, query, patience_s=READ_TIMEOUT_S)
        if not found and clustered(self._client):
            stored = await self._storage.next(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, first)
            found = [] if stored is None else [stored]
        return [from_stored(stored) for stored in found]
