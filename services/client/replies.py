"""The reply multiplexer: one subscription for the replies to all requests, and a queue for each.

nats-py's own `request` takes one reply. Here a request may have many (tokens, then the result), and
whoever waits hears at once when nobody listens or when the connection was lost on the way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import NamedTuple, TypeVar

import nats.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import ChoirError, InternalError, MeshUnreachable, error_from_body
from schemas.message import Message
from schemas.replies import ErrorReply, Result
from services.chassis.nats.connecting.address import why
from services.chassis.nats.direct.hearing import hear_directly
from services.chassis.nats.direct.sending import send_directly
from services.chassis.telemetry.tracing import Span
from services.client.connection import check_payload

NO_RESPONDERS = b"NATS/1.0 503"
LINE_END = b"\r\n"
KIND_LINE = LINE_END + subjects.KIND_HEADER.encode() + b":"

ReplyT = TypeVar("ReplyT", bound=Message)


class NoReply(Exception):
    """Raised when a reply does not come. With `nobody` the broker says that no service listens."""

    def __init__(self, *, nobody: bool = False) -> None:
        super().__init__("nobody listens" if nobody else "no reply")
        self.nobody = nobody


class Reply(NamedTuple):
    """A reply as it came: its `kind` (`token`, `result`, `error`; None where it does not say), and its
    payload. With `nobody` it is the broker's, which says that no service listens."""

    kind: str | None
    data: bytes
    nobody: bool = False

    @classmethod
    def of(cls, headers: bytes, data: bytes) -> Reply:
        """From a message's headers as they came."""
        _, found, rest = headers.partition(KIND_LINE)
        kind = rest.partition(LINE_END)[0].strip().decode("latin-1") if found else None
        return cls(kind, data, headers.startswith(NO_RESPONDERS))


class ReplyQueue:
    """What comes back to one request. One waits for it at a time; what has come already costs no wait."""

    def __init__(self, subject: str, inbox: str) -> None:
        self.subject = subject
        self.inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._come: deque[Reply | ChoirError | None] = deque()
        self._awaited: asyncio.Future[None] | None = None

    def put(self, reply: Reply | ChoirError | None) -> None:
        """Takes a reply, why there will be none, or None for a connection that was lost for a while."""
        self._come.append(reply)
        self._wake()

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    async def next(self, timeout_s: float) -> Reply:
        """The next reply; NoReply if none comes in time, else the error that says why none will."""
        if not self._come:
            self._awaited = self._loop.create_future()
            overdue = self._loop.call_later(timeout_s, self._wake)
            try:
                await self._awaited
            finally:
                overdue.cancel()
                self._awaited = None
        return _heard(self._come.popleft() if self._come else None)


class OneReply:
    """The same for a request that has one reply: it costs neither a queue nor a task."""

    def __init__(self, subject: str, inbox: str) -> None:
        self.subject = subject
        self.inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Reply | ChoirError | None] = self._loop.create_future()

    def put(self, reply: Reply | ChoirError | None) -> None:
        """Takes the reply, or why there will be none, as `ReplyQueue` does."""
        if not self._reply.done():
            self._reply.set_result(reply)

    async def come(self, timeout_s: float) -> Reply:
        """The reply; NoReply if it does not come in time, else the error that says why it will not."""
        overdue = self._loop.call_later(timeout_s, self.put, None)
        try:
            return _heard(await self._reply)
        finally:
            overdue.cancel()


def _heard(reply: Reply | ChoirError | None) -> Reply:
    """A reply that says something. NoReply for none, or the error that stands in its place."""
    if reply is None:
        raise NoReply
    if isinstance(reply, ChoirError):
        raise reply
    if reply.nobody:
        raise NoReply(nobody=True)
    if not reply.data:
        raise NoReply  # a stream of replies has ended without the last one
    return reply


class ReplyMultiplexer:
    """All requests of one client that wait for replies."""

    def __init__(self) -> None:
        self._open: dict[str, ReplyQueue | OneReply] = {}
        self._numbers = count()
        self._prefix = ""
        self._refusal: ChoirError | None = None

    async def start(self, client: Client) -> None:
        """Receives replies from now on."""
        self._client = client
        self._prefix = client.new_inbox()
        hear_directly(client, await client.subscribe(f"{self._prefix}.*"), self._on_reply)

    def _on_reply(self, inbox: str, headers: bytes, data: bytes) -> None:
        queue = self._open.get(inbox)
        if queue is not None:
            queue.put(Reply.of(headers, data))

    def interrupted(self) -> None:
        """The connection is back: replies may have been lost meanwhile, so nobody waits on for them."""
        for queue in self._open.values():
            queue.put(None)

    def refused(self, error: ChoirError) -> None:
        """The broker does not allow something to this client: nobody waits for a reply that cannot come.

        The broker names the subject, never the message; where all share one account that of the door. Whoever
        may not listen to replies may ask nothing later either.
        """
        said = error.message.lower()
        if self._prefix.lower() in said:
            self._refusal = error
        for queue in self._open.values():
            names = (queue.subject, subjects.door(subjects.LOCAL_TENANT, queue.subject))
            if self._refusal is not None or any(f'"{name.lower()}"' in said for name in names):
                queue.put(error)

    @property
    def connected(self) -> bool:
        """Whether the broker is there at this moment."""
        return self._client.is_connected

    async def open(
        self,
        subject: str,
        payload: bytes,
        span: Span | None = None,
        tenant: str | None = None,
        *,
        new: bool = False,
    ) -> ReplyQueue:
        """Sends a request; its replies come to an inbox of its own, until `close`.

        With a `tenant` it goes to that one's door, where only who is inside the mesh may knock.
        It is traced as `span`, by default as work asked for by what is being done here. `new` says that
        nobody has asked under its id before, so that the router need not look.

        Raises PayloadTooLarge before anything is sent, MeshUnreachable if the connection is gone for good,
        and ConfigurationError if the broker does not let this client have replies.
        """
        queue = ReplyQueue(*self._addresses(subject, payload, tenant))
        self._open[queue.inbox] = queue
        try:
            await self._publish(queue, payload, span, new)
        except BaseException:
            self.close(queue)
            raise
        return queue

    def close(self, queue: ReplyQueue) -> None:
        """Nobody waits for replies to a request any more."""
        del self._open[queue.inbox]

    async def call(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        span: Span | None = None,
        tenant: str | None = None,
        *,
        new: bool = False,
        key: str | None = None,
        secret: str | None = None,
    ) -> Reply:
        """The one reply to a request. With the `secret` of an API key it goes to the tenant's keyed door, and
        the key along with it. Raises what `request` raises, and what waiting for a reply does."""
        reply = OneReply(*self._addresses(subject, payload, tenant, keyed=secret is not None))
        self._open[reply.inbox] = reply
        try:
            await self._publish(reply, payload, span, new, key, secret)
            return await reply.come(timeout_s)
        finally:
            del self._open[reply.inbox]

    def _addresses(
        self, subject: str, payload: bytes, tenant: str | None, *, keyed: bool = False
    ) -> tuple[str, str]:
        """Where a request goes, and where its replies come."""
        if self._refusal is not None:
            raise self._refusal
        check_payload(self._client, payload)
        at = subjects.keyed_door if keyed else subjects.door
        where = subject if tenant is None else at(tenant, subject)
        return where, f"{self._prefix}.{next(self._numbers)}"

    async def _publish(
        self,
        waiting: ReplyQueue | OneReply,
        payload: bytes,
        span: Span | None,
        new: bool,
        key: str | None = None,
        secret: str | None = None,
    ) -> None:
        headers = (span or Span.here()).headers
        if new:
            headers[subjects.NEW_HEADER] = "1"
        own_words = key is None and secret is None
        if own_words and send_directly(self._client, waiting.subject, waiting.inbox, payload, headers):
            return
        if key is not None:
            headers[subjects.KEY_HEADER] = key
        if secret is not None:
            headers[subjects.API_KEY_HEADER] = secret
        try:
            await self._client.publish(waiting.subject, payload, reply=waiting.inbox, headers=headers)
        except nats.errors.Error as error:
            raise MeshUnreachable(f"the connection to the broker is gone: {why(error)}") from error


def read(reply: Reply, reply_type: type[ReplyT]) -> ReplyT:
    """A reply as what it should be; raises the typed error that it carries instead."""
    if reply.kind == "error":
        raise error_from_body(_parsed(reply.data, ErrorReply).error)
    message = _parsed(reply.data, reply_type)
    if isinstance(message, Result) and message.error is not None:
        error = error_from_body(message.error)
        error.result = message
        raise error
    return message


def _parsed(data: bytes, reply_type: type[ReplyT]) -> ReplyT:
    try:
        return reply_type.read(data)
    except ValidationError as error:
        raise InternalError(
            f"the reply is not a {reply_type.__name__} as this version knows it: do client and mesh "
            f"have the same version? ({error.error_count()} faults)"
        ) from error
