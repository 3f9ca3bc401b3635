"""A pull subscription: the standing demand of a work loop on one durable consumer.

nats-py's `fetch` waits for one batch after another. A work loop wants a standing demand that grows
by one whenever a slot falls free, and that can be taken back when all slots are full, so the pull
protocol (ADR-13) is spoken here directly.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from schemas import subjects
from services.chassis.logs import get_logger
from services.chassis.nats.connection import clustered

EXPIRES_S = 30.0
PENDING_HEADER = "Nats-Pending-Messages"
NO_RESPONDERS = "503"
HEARTBEAT = "100"
HEARTBEAT_S = 3.0
"""So often a cluster says that it still knows what was asked of it. Silence for two of these means that
another server leads now, and has to be asked again."""

OnMessage = Callable[[Msg], Awaitable[None]]

log = get_logger("chassis.pull")


class PullSubscription:
    """Asks one consumer for messages and hands them to `on_message`."""

    def __init__(self, client: Client, stream: str, consumer: str, on_message: OnMessage) -> None:
        self._client = client
        self._subject = subjects.pull_next(stream, consumer)
        self._consumer = consumer
        self._on_message = on_message
        self._inbox: Subscription | None = None
        self._epoch = 0
        self._asked_at = self._heard_at = self._refused_at = 0.0
        self._drains: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self._missing = False

    @property
    def unanswered(self) -> bool:
        """Whether nobody took the last request: there is no such consumer."""
        return self._missing and self._refused_at >= self._asked_at

    async def pull(self, count: int, turns: int = 1) -> None:
        """Asks for `count` more messages, in so many requests.

        The broker goes round the requests that wait and gives each a message in its turn, so whoever has
        more of them there is next more often.
        """
        inbox = await self._open()
        self.in_flight += count
        self._asked_at = self._heard_at = time.monotonic()
        beats = {"idle_heartbeat": int(HEARTBEAT_S * 1e9)} if clustered(self._client) else {}
        turns = max(1, min(turns, count))
        for turn in range(turns):
            batch = count // turns + (turn < count % turns)
            request = {"batch": batch, "expires": int(EXPIRES_S * 1e9), **beats}
            await self._client.publish(self._subject, json.dumps(request).encode(), reply=inbox.subject)

    def cancel(self) -> None:
        """Takes all demand back; a message that is already on its way still arrives.

        Draining ends when `on_message` has returned, which may be where this is called: nobody waits for it.
        """
        inbox, self._inbox = self._inbox, None
        self.in_flight = 0
        if inbox is not None and not self._client.is_closed:
            drain = asyncio.create_task(self._drain(inbox))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)

    async def drained(self) -> None:
        """Returns when everything that was on its way has been handed over. Not for use in `on_message`."""
        if self._drains:
            await asyncio.wait(self._drains)

    async def _drain(self, inbox: Subscription) -> None:
        try:
            await inbox.drain()  # type: ignore[no-untyped-call]
        except nats.errors.Error as error:
            log.warning("inbox not drained", consumer=self._consumer, why=str(error))

    def reset(self) -> None:
        """The broker has forgotten what was asked of it (it restarted): so do we."""
        self.in_flight = 0

    def reset_if_overdue(self) -> None:
        """PullSubscription that neither came nor expired in time was lost on the way."""
        lost = time.monotonic() > self._asked_at + EXPIRES_S + 5
        silent = clustered(self._client) and time.monotonic() > self._heard_at + 2 * HEARTBEAT_S
        if self.in_flight and (lost or silent):
            log.warning("pull request was lost", consumer=self._consumer)
            self.reset()

    async def _open(self) -> Subscription:
        """The inbox of the demand that stands; a message in an older one settles nothing."""
        if self._inbox is None:
            self._epoch += 1
            epoch = self._epoch

            async def receive(msg: Msg) -> None:
                await self._receive(msg, current=self._inbox is not None and epoch == self._epoch)

            self._inbox = await self._client.subscribe(self._client.new_inbox(), cb=receive)
        return self._inbox

    async def _receive(self, msg: Msg, current: bool) -> None:
        status = msg.headers.get("Status") if msg.headers else None
        if current:
            self._heard_at = time.monotonic()
        if status == HEARTBEAT:
            return
        if status is None or msg.reply:
            if current:
                self.in_flight = max(0, self.in_flight - 1)
            self._missing = False
            await self._on_message(msg)
        elif current:
            self._settle(status, msg)

    def _settle(self, status: str, msg: Msg) -> None:
        """A pull request ended early: 404 nothing there, 408 expired, 409 cut off, 503 no broker."""
        headers = msg.headers or {}
        pending = headers.get(PENDING_HEADER)
        known, self._missing = self._missing, status == NO_RESPONDERS
        if self._missing:
            self._refused_at = time.monotonic()
        self.in_flight = max(0, self.in_flight - int(pending)) if pending else 0
        if status not in ("404", "408") and not (known and self._missing):
            log.warning(
                "pull request refused", consumer=self._consumer, status=status, why=headers.get("Description")
            )
