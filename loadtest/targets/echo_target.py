"""A bare NATS responder: what the generator itself can do, without a mesh behind it."""

from __future__ import annotations

import json
from collections.abc import Collection

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from loadtest.generate.request_record import TIMED_OUT, RequestRecord
from loadtest.generate.workloads import Fields
from loadtest.targets.target import Clock


class EchoTarget:
    """Whoever replies on `subject`; any reply is an answer."""

    def __init__(self, url: str, subject: str) -> None:
        self._url = url
        self._subject = subject
        self._clock: Clock
        self._client: Client
        self._prefix = ""
        self._records: dict[str, RequestRecord] = {}

    async def open(self, clock: Clock) -> None:
        """Connects."""
        self._clock = clock
        self._client = await nats.connect(self._url)
        self._prefix = self._client.new_inbox()
        await self._client.subscribe(f"{self._prefix}.*", cb=self._on_reply, pending_bytes_limit=0)

    async def send(self, record: RequestRecord, fields: Fields) -> None:
        """Publishes the fields."""
        token = str(record.number)
        self._records[token] = record
        payload = json.dumps(fields).encode()
        await self._client.publish(self._subject, payload, reply=f"{self._prefix}.{token}")

    async def settle(self, records: Collection[RequestRecord]) -> None:
        """An echo that has not come does not come."""
        for record in records:
            record.end(self._clock(), TIMED_OUT)

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._client.close()

    async def _on_reply(self, msg: Msg) -> None:
        at_s = self._clock()
        self._records.pop(msg.subject[len(self._prefix) + 1 :]).end(at_s)
