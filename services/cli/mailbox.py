"""Replies to requests: one subscription for all of them, and a queue for each.

nats-py's own `request` takes one reply. Here a request may have many (tokens, then the result), and
whoever waits hears at once when nobody listens or when the connection was lost on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import InternalError, MeshUnreachable, error_from_body
from schemas.message import Message
from schemas.replies import ErrorReply, Result
from services.chassis.address import why
from services.chassis.tracing import Span
from services.cli.link import check_payload

NO_RESPONDERS = "503"
STATUS_HEADER = "Status"

ReplyT = TypeVar("ReplyT", bound=Message)


class Unanswered(Exception):
    """Raised when a reply does not come. With `nobody` the broker says that no service listens."""

    def __init__(self, *, nobody: bool = False) -> None:
        super().__init__("nobody listens" if nobody else "no reply")
        self.nobody = nobody


class Letters:
    """What comes back to one request."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue()

    def put(self, msg: Msg | None) -> None:
        """Takes a reply, or None for a connection that was lost for a while."""
        self._queue.put_nowait(msg)

    async def next(self, timeout_s: float) -> Msg:
        """The next reply; Unanswered if none comes in time, or none can come."""
        try:
            async with asyncio.timeout(timeout_s):
                msg = await self._queue.get()
        except TimeoutError as error:
            raise Unanswered from error
        if msg is None:
            raise Unanswered
        if msg.headers and msg.headers.get(STATUS_HEADER) == NO_RESPONDERS:
            raise Unanswered(nobody=True)
        return msg


class Mailbox:
    """All requests of one client that wait for replies."""

    def __init__(self) -> None:
        self._open: dict[str, Letters] = {}
        self._numbers = count()
        self._prefix = ""

    async def start(self, client: Client) -> None:
        """Receives replies from now on."""
        self._client = client
        self._prefix = client.new_inbox()
        await client.subscribe(f"{self._prefix}.*", cb=self._on_reply, pending_bytes_limit=0)

    async def _on_reply(self, msg: Msg) -> None:
        letters = self._open.get(msg.subject)
        if letters is not None:
            letters.put(msg)

    def interrupted(self) -> None:
        """The connection is back: replies may have been lost meanwhile, so nobody waits on for them."""
        for letters in self._open.values():
            letters.put(None)

    @property
    def connected(self) -> bool:
        """Whether the broker is there at this moment."""
        return self._client.is_connected

    @asynccontextmanager
    async def post(self, subject: str, payload: bytes, span: Span | None = None) -> AsyncIterator[Letters]:
        """Sends a request; its replies come to an inbox of its own for as long as the context is open.

        It is traced as `span`, by default as work asked for by what is being done here.

        Raises PayloadTooLarge before anything is sent, MeshUnreachable if the connection is gone for good.
        """
        check_payload(self._client, payload)
        letters = Letters(f"{self._prefix}.{next(self._numbers)}")
        self._open[letters.inbox] = letters
        try:
            await self._publish(subject, payload, letters.inbox, span or Span.here())
            yield letters
        finally:
            del self._open[letters.inbox]

    async def _publish(self, subject: str, payload: bytes, inbox: str, span: Span) -> None:
        try:
            await self._client.publish(subject, payload, reply=inbox, headers=span.headers)
        except nats.errors.Error as error:
            raise MeshUnreachable(f"the connection to the broker is gone: {why(error)}") from error


def kind_of(msg: Msg) -> str | None:
    """What a reply is: `token`, `result`, `error`; None where the reply does not say."""
    return (msg.headers or {}).get(subjects.KIND_HEADER)


def read(msg: Msg, reply_type: type[ReplyT]) -> ReplyT:
    """A reply as what it should be; raises the typed error that it carries instead."""
    if kind_of(msg) == "error":
        raise error_from_body(_parsed(msg, ErrorReply).error)
    reply = _parsed(msg, reply_type)
    if isinstance(reply, Result) and reply.error is not None:
        raise error_from_body(reply.error)
    return reply


def _parsed(msg: Msg, reply_type: type[ReplyT]) -> ReplyT:
    try:
        return reply_type.model_validate_json(msg.data)
    except ValidationError as error:
        raise InternalError(
            f"the reply is not a {reply_type.__name__} as this version knows it: do client and mesh "
            f"have the same version? ({error.error_count()} faults)"
        ) from error
