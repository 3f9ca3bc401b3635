"""What a service reads of the broker for a request, so that tests can compare the ways of two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.client import Client

from schemas import subjects
from services.chassis.nats.streams import Storage

STORAGE = ("last", "next", "at", "last_of_each")
REPLY_S = 180.0


class BrokerReads:
    """All that is read in this process from now on, in its order: each with its name and arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read: list[tuple[str, ...]] = []
        for name in STORAGE:
            monkeypatch.setattr(Storage, name, self._recorded(name, getattr(Storage, name)))
        monkeypatch.setattr(Client, "request", self._recorded("request", Client.request))

    def _recorded(self, name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        async def record(own: Any, *arguments: Any, **named: Any) -> Any:
            self._read.append((name, *(str(argument) for argument in arguments)))
            return await do(own, *arguments, **named)

        return record

    async def way_of(
        self, client: Client, subject: str, request_id: str, **fields: object
    ) -> tuple[list[tuple[str, ...]], bytes, dict[str, str]]:
        """Asks about an id: what was read that names it, and the reply with its headers, but for the trace's;
        in all of them ID stands for the id."""
        self._read.clear()
        inbox = client.new_inbox()
        replies = await client.subscribe(inbox)
        asked = json.dumps({"request_id": request_id, **fields}).encode()
        await client.publish(subject, asked, reply=inbox)
        reply = await replies.next_msg(REPLY_S)
        await replies.unsubscribe()
        named = [tuple(part.replace(request_id, "ID") for part in one) for one in self._read]
        headers = {name: value.replace(request_id, "ID") for name, value in (reply.headers or {}).items()}
        headers.pop(subjects.TRACE_HEADER, None)
        return (
            [one for one in named if "ID" in str(one)],
            reply.data.replace(request_id.encode(), b"ID"),
            headers,
        )
