"""Publishes events until a cluster has acknowledged them.

One broker stores what reaches it. A cluster that is choosing a leader, or whose server is cut off from the
others, drops what nobody waits for: there each event is sent again, under its own id, until its
acknowledgement comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic_core import from_json

from schemas import subjects
from services.chassis.nats.election import ELECTION_PATIENCE_S

ACK_PATIENCE_S = 2.0
PAUSE_S = 0.2


@dataclass(frozen=True)
class Unsent:
    """An event that is to be stored: its subject, its body, and the id under which it is stored once."""

    subject: str
    body: bytes
    event_id: str


class Acknowledged:
    """Sends events, and hears what the broker says of each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._number = 0

    async def send(self, events: Sequence[Unsent]) -> int:
        """Returns when all are stored, or after ELECTION_PATIENCE_S; how many are not."""
        left, end_s = list(events), time.monotonic() + ELECTION_PATIENCE_S
        while left:
            left = await self._try(left)
            if left and time.monotonic() >= end_s:
                break
            if left:
                await asyncio.sleep(PAUSE_S)
        return len(left)

    async def _try(self, events: Sequence[Unsent]) -> list[Unsent]:
        """Sends each once; those that were not acknowledged in time."""
        loop = asyncio.get_running_loop()
        told: list[tuple[Unsent, asyncio.Future[bool]]] = []
        tokens: list[str] = []
        try:
            if not self._inbox:
                inbox = self._client.new_inbox()
                await self._client.subscribe(f"{inbox}.*", cb=self._hear)
                self._inbox = inbox
            for event in events:
                self._number += 1
                token = str(self._number)
                tokens.append(token)
                self._waiting[token] = loop.create_future()
                told.append((event, self._waiting[token]))
                await self._client.publish(
                    event.subject,
                    event.body,
                    reply=f"{self._inbox}.{token}",
                    headers={subjects.MESSAGE_ID_HEADER: event.event_id},
                )
            await asyncio.wait([future for _, future in told], timeout=ACK_PATIENCE_S)
        except nats.errors.Error:
            await asyncio.sleep(PAUSE_S)  # the connection is being made again
        finally:
            for token in tokens:
                self._waiting.pop(token, None)
        stored = {event.event_id for event, future in told if future.done() and future.result()}
        return [event for event in events if event.event_id not in stored]

    async def _hear(self, msg: Msg) -> None:
        future = self._waiting.get(msg.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(bool(msg.data) and "error" not in from_json(msg.data))
