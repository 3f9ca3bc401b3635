"""Reads what a stream holds, without a consumer (ADR-31): one message, or many for one request."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import BrokerUnavailable

READ_TIMEOUT_S = 2.0
STATUS_HEADER = "Status"
END_OF_BATCH, NOTHING_THERE = "204", "404"
NO_MESSAGE = 10037
"""The broker's code for a message that is not there."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it; `traceparent` is the trace context that it carries."""

    subject: str
    sequence: int
    data: bytes
    traceparent: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


async def get_direct(client: Client, stream: str, query: Mapping[str, object]) -> Stored | None:
    """The message that `query` asks for (`seq`, `next_by_subj`, `last_by_subj`), as any server has it;
    None if there is none. Raises BrokerUnavailable."""
    request = json.dumps(query).encode()
    try:
        reply = await client.request(subjects.direct_get(stream), request, timeout=READ_TIMEOUT_S)
    except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
        raise BrokerUnavailable(f"stream {stream} could not be read") from error
    headers = reply.headers or {}
    status = headers.get(STATUS_HEADER)
    if status == NOTHING_THERE:
        return None
    if status is not None:
        raise BrokerUnavailable(f"stream {stream}: {status} {headers.get('Description', '')}")
    return _stored(reply)


async def get_of_leader(client: Client, stream: str, query: Mapping[str, object]) -> Stored | None:
    """The same, as the server has it that leads the stream. Raises what the request raises, too."""
    request = json.dumps(query).encode()
    reply = await client.request(subjects.message_get(stream), request, timeout=READ_TIMEOUT_S)
    told = json.loads(reply.data)
    if (error := told.get("error")) is not None:
        if error.get("err_code") == NO_MESSAGE:
            return None
        raise BrokerUnavailable(f"stream {stream}: {error.get('description', error)}")
    return _of_leader(told["message"])


async def get_many(
    client: Client, stream: str, query: Mapping[str, object], *, patience_s: float
) -> list[Stored]:
    """The messages that a direct get of several finds, oldest first. `query` says where it begins (`seq` or
    `start_time`) and how far it goes (`batch`, `max_bytes`, `next_by_subj`), or of which subjects the last
    messages are wanted (`multi_last`).

    Any server answers that has the stream, so the newest messages may be missing. Raises BrokerUnavailable
    where the stream cannot be read, or nothing more comes for `patience_s`.
    """
    found: list[Stored] = []
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    async def receive(msg: Msg) -> None:
        status = (msg.headers or {}).get(STATUS_HEADER)
        if status is None:
            found.append(_stored(msg))
            if not silence.expired():
                silence.reschedule(loop.time() + patience_s)
        elif not ended.done():
            ended.set_result(status)

    try:
        async with asyncio.timeout(patience_s) as silence:
            replies = await client.subscribe(client.new_inbox(), cb=receive)
            try:
                request = json.dumps(query).encode()
                await client.publish(subjects.direct_get(stream), request, reply=replies.subject)
                status = await ended
            finally:
                await replies.unsubscribe()
    except (TimeoutError, nats.errors.Error) as error:
        raise BrokerUnavailable(f"stream {stream} could not be read") from error
    if status not in (END_OF_BATCH, NOTHING_THERE):
        raise BrokerUnavailable(f"stream {stream}: status {status}")
    return found


def _stored(msg: Msg) -> Stored:
    headers = msg.headers or {}
    return Stored(
        headers[subjects.SUBJECT_HEADER],
        int(headers[subjects.SEQUENCE_HEADER]),
        msg.data,
        headers.get(subjects.TRACE_HEADER),
        headers,
    )


def _of_leader(message: Mapping[str, Any]) -> Stored:
    """What the leader tells of a message, with the headers that a direct get would have."""
    block = base64.b64decode(message.get("hdrs") or "").decode(errors="replace")
    lines = (line.partition(":") for line in block.split("\r\n")[1:] if line)
    headers = {name.strip(): value.strip() for name, _, value in lines}
    headers |= {
        subjects.SUBJECT_HEADER: message["subject"],
        subjects.SEQUENCE_HEADER: str(message["seq"]),
        subjects.STORED_AT_HEADER: message["time"],
    }
    data = base64.b64decode(message.get("data") or "")
    return Stored(message["subject"], message["seq"], data, headers.get(subjects.TRACE_HEADER), headers)
