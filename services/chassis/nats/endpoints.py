"""Request-reply endpoints under NATS's services API (ADR-32): typed in, typed out, typed errors.

An endpoint of `nats.micro` handles one request at a time; here each request gets a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig
from pydantic import ValidationError

from schemas import subjects
from schemas.broker import catalog
from schemas.errors import (
    ChoirError,
    InternalError,
    InvalidRequest,
    NotReady,
    PayloadTooLarge,
    error_from_body,
)
from schemas.message import Message
from schemas.replies import ErrorReply, Result
from schemas.requests.keys import ApiKey
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.connection import envelope_bytes
from services.chassis.nats.direct.hearing import reply_of, stop_taking, take_directly
from services.chassis.nats.error_replies import FULL, REFUSAL, error_headers
from services.chassis.nats.sharing import Places, Rounds
from services.chassis.plain_words import first_fault
from services.chassis.process.stopping import ENDPOINTS_PATIENCE_S
from services.chassis.registry.shown_keys import ShownKeys
from services.chassis.telemetry.audit import audited
from services.chassis.telemetry.events import EventLog
from services.chassis.telemetry.tracing import Tracing, Work, current_span, enter

QUICK_LIMIT = 1_024
BEGUN_AT_ONCE = 16
"""So many requests of one tenant begin before those of others have their turn."""
CUT_MESSAGE_CHARACTERS = 2_000
DROPPED = "dropped a request whose replies are to go to no inbox"
"""What the log and `$SRV.STATS` say of one."""
ERROR_ENVELOPE_BYTES = 1_024
"""The headers of an error reply: a line of its message, its code, and the trace."""

INBOX = "_INBOX"
ACROSS_ACCOUNTS = "_R_"
"""With what the reply subjects begin that clients and brokers make."""

RequestT = TypeVar("RequestT", bound=Message)

log = get_logger("chassis.endpoints")


class Caller:
    """Who asks, and where the reply to one request goes.

    `tenant` is whose door the request came through. A caller that `streams` takes several messages, any other
    one. Nothing is sent to a caller that gave no reply subject. `new` is a caller that says that nobody has
    asked under its request's id before. `secret` is that of an API key, where one has to come along, `shown`
    the key once it was found to be good. `key` is the id of a key whose secret was looked at, here or by the
    router that asks: never what a caller says alone.
    """

    secret: str | None = None
    shown: ApiKey | None = None

    def __init__(
        self,
        client: Client,
        inbox: str,
        *,
        tenant: str = subjects.LOCAL_TENANT,
        streams: bool = False,
        new: bool = False,
        key: str | None = None,
    ) -> None:
        self._client = client
        self.inbox = inbox
        self.tenant = tenant
        self.streams = streams
        self.new = new
        self.key = key

    def owned(self, request_id: str) -> str:
        """The id inside the mesh of a request that this caller names: one of its tenant's own."""
        return subjects.owned_id(self.tenant, request_id)

    async def send(self, reply: Message, kind: str | None = None) -> None:
        """Sends a message to the caller; several may be sent.

        PayloadTooLarge if the broker does not carry it.
        """
        headers = {subjects.KIND_HEADER: kind} if kind else None
        await self._publish(reply.to_bytes(), headers)

    async def send_what_fits(self, versions: Iterable[Message]) -> None:
        """Sends the first of `versions`, each with less in it than the one before, that the broker carries.

        PayloadTooLarge if there is none.
        """
        size = 0
        for version in versions:
            payload = version.to_bytes()
            size = len(payload)
            if size <= self._client.max_payload:
                await self._publish(payload, None)
                return
        raise _too_large(size, self._client.max_payload)

    async def send_result(self, result: Result) -> None:
        """Sends a result under the id that its client gave it; one that is an error also carries the services
        API's error headers.

        PayloadTooLarge if the broker does not carry it.
        """
        headers: dict[str, str] = {subjects.KIND_HEADER: result.kind} | trace_headers()
        if result.error is not None:
            headers |= error_headers(error_from_body(result.error))
        await self._publish(result.for_client().to_bytes(), headers)

    async def send_error(self, error: ChoirError, request_id: str | None = None) -> None:
        """Sends an error reply; what it names besides is left out if there is too much of it."""
        reply = ErrorReply(error=error.body(request_id))
        if len(reply.to_bytes()) > self._client.max_payload - ERROR_ENVELOPE_BYTES:
            cut = {"known": None, "message": error.message[:CUT_MESSAGE_CHARACTERS]}
            reply = ErrorReply(error=reply.error.model_copy(update=cut))
        headers = {subjects.KIND_HEADER: reply.kind} | trace_headers() | error_headers(error)
        await self._publish(reply.to_bytes(), headers)

    async def pass_on(self, reply: Msg) -> None:
        """Sends what another service has answered. PayloadTooLarge if the broker does not carry it."""
        await self._publish(reply.data, reply.headers)

    async def end(self) -> None:
        """Says to a caller that streams that nothing more comes; the broker forgets where its replies go."""
        if self.streams:
            await self._publish(b"", None)

    async def _publish(self, payload: bytes, headers: dict[str, str] | None) -> None:
        if not self.inbox:
            return
        size = len(payload) + envelope_bytes(headers)
        if size > self._client.max_payload:
            raise _too_large(size, self._client.max_payload)
        await self._client.publish(self.inbox, payload, headers=headers)


class GuardedService(Service):
    """A service's part of the services API: it tells of itself in inboxes, and nowhere else."""

    async def _handle_ping_request(self, msg: Msg) -> None:
        if _may_be_answered(msg):
            await super()._handle_ping_request(msg)

    async def _handle_info_request(self, msg: Msg) -> None:
        if _may_be_answered(msg):
            await super()._handle_info_request(msg)

    async def _handle_stats_request(self, msg: Msg) -> None:
        if _may_be_answered(msg):
            await super()._handle_stats_request(msg)


def _may_be_answered(msg: Msg) -> bool:
    if msg.reply and not is_inbox(msg.reply):
        log.warning(DROPPED, reply=msg.reply, asked=msg.subject)
    return is_inbox(msg.reply)


def is_inbox(reply: str) -> bool:
    """Whether replies may go there: to an inbox, or to where the broker leads into another account.

    Whoever asks chooses the reply subject, and a service publishes there with its own rights.
    """
    first, _, rest = reply.partition(".")
    known = first == ACROSS_ACCOUNTS or first.startswith(INBOX)
    return known and bool(rest) and not {"*", ">"} & set(rest.split("."))


def _too_large(size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the reply has {size} bytes, and the broker carries {limit}: ask for less, or raise max_payload in "
        "section [broker]"
    )


Handler = Callable[[RequestT, Caller], Awaitable[None]]


def trace_headers() -> dict[str, str]:
    """The trace of the work that is being done, for its outcome."""
    span = current_span()
    return {} if span is None else span.headers


def parse(data: bytes, request_type: type[RequestT]) -> RequestT:
    """Reads a request; InvalidRequest names the first field that is wrong. No bytes mean no fields."""
    try:
        return request_type.model_validate_json(data or b"{}", strict=True)
    except ValidationError as error:
        field, what = first_fault(error, whole="body")
        raise InvalidRequest(f"{field}: {what}", field=field) from error


def _as_many_as_there_is_room_for(_tenant: str) -> None:
    """No limit of a tenant's own."""


class Endpoints:
    """The services-API registration of one instance, and the endpoints it answers.

    With `events` and `tracing` of the mesh a request's trace is followed by what its handler does. `most`
    says how many requests of a tenant may be open at once, those that are quick apart: one more is refused
    before anything of it is read, and `on_full` is told of whom. `let_in` raises for a tenant whose requests
    are not answered. By `now` an API key that comes along is good no longer.
    """

    def __init__(
        self,
        client: Client,
        identity: Identity,
        description: str,
        limit: int = 8_192,
        *,
        most: Callable[[str], int | None] = _as_many_as_there_is_room_for,
        on_full: Callable[[str], None] = lambda _tenant: None,
        let_in: Callable[[str], None] = lambda _tenant: None,
        events: EventLog | None = None,
        tracing: Tracing | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._identity = identity
        self._description = description
        self._events = events
        self._tracing = tracing or Tracing()
        self._most, self._let_in, self._on_full = most, let_in, on_full
        self._shown = ShownKeys(client, now)
        self._waiting = Places(limit)
        self._quick = Places(QUICK_LIMIT)
        self._rounds, self._quick_rounds = Rounds(BEGUN_AT_ONCE), Rounds(BEGUN_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard: list[Subscription] = []
        self._unread: list[bytes] = []
        """Refusals that are still to be sent."""
        self._service: Service | None = None

    async def start(self) -> None:
        """Registers the service: from now on `$SRV.PING`, `INFO` and `STATS` see it."""
        self._service = GuardedService(
            self._client,
            ServiceConfig(
                name=self._identity.service,
                version=self._identity.version,
                description=self._description,
                metadata={"instance": self._identity.instance, "host": self._identity.host},
            ),
        )
        await self._service.start()

    async def stop(self, patience_s: float = ENDPOINTS_PATIENCE_S) -> None:
        """Takes no more requests and gives those that are open a little time."""
        for heard in self._heard:
            stop_taking(self._client, heard)
        if self._service is not None:
            await self._service.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        for task in tuple(self._tasks):
            task.cancel()

    async def add(
        self,
        subject: str,
        request_type: type[RequestT],
        handler: Handler[RequestT],
        *,
        quick: bool = False,
        streams: bool = False,
    ) -> None:
        """Answers requests on `subject`, and at the keyed door of what gateways ask with an API key. One
        instance of the service takes each.

        `quick` ones wait for nothing, and have room of their own: who would cancel something, or see what
        goes on, is answered when clients that wait have taken all places. With `streams` a handler may send
        several messages; an empty one follows the last, whatever happens.
        """
        await self._listen(subject, request_type, handler, quick=quick, streams=streams)
        asked = subjects.asked_on(subject)
        if asked in catalog.KEYED.keys() - catalog.RELAYED and subject == subjects.doors(asked):
            keyed = subjects.keyed_doors(asked)
            await self._listen(keyed, request_type, handler, quick=quick, streams=streams)

    async def _listen(
        self,
        subject: str,
        request_type: type[RequestT],
        handler: Handler[RequestT],
        *,
        quick: bool,
        streams: bool,
    ) -> None:
        if self._service is None:
            raise RuntimeError("start() comes before add()")
        asked, keyed = subjects.asked_on(subject), subjects.is_keyed(subject)
        by_relay = asked in catalog.RELAYED
        if keyed:
            handler = partial(self._opened, asked, handler)
        if self._events is not None:
            handler = audited(handler, request_type, subject, self._events, relays=keyed and by_relay)

        async def take(request: Request) -> None:
            inbox, tenant = request._msg.reply, subjects.tenant_at(request.subject)
            if inbox and not is_inbox(inbox):
                self._drop(subject, inbox, tenant)
                return
            said = request.headers or {}
            new, key = subjects.NEW_HEADER in said, None
            if by_relay and not keyed and not inbox.startswith(ACROSS_ACCOUNTS):
                key = said.get(subjects.KEY_HEADER)  # no tenant's word, but that of a router
            caller = Caller(self._client, inbox, tenant=tenant, streams=streams, new=new, key=key)
            caller.secret = said.get(subjects.API_KEY_HEADER)
            places, rounds = (self._quick, self._quick_rounds) if quick else (self._waiting, self._rounds)
            if not places.take(tenant, None if quick else self._most(tenant)):
                self._on_full(tenant)
                await caller.send_error(FULL)
                await caller.end()
                return
            task = asyncio.create_task(self._serve(request, request_type, handler, caller, rounds))
            self._tasks.add(task)

            def done(task: asyncio.Task[None]) -> None:
                self._tasks.discard(task)
                places.leave(tenant)

            task.add_done_callback(done)

        name = subjects.endpoint_name(subject)
        await self._service.add_endpoint(EndpointConfig(name=name, subject=subject, handler=take))
        heard = self._service._endpoints[-1]._subscription
        take_directly(self._client, heard, partial(self._refuse_unread, quick, streams))
        self._heard.append(heard)

    def _drop(self, subject: str, inbox: str, tenant: str) -> None:
        """Does nothing of a request on `subject`, and says so to whoever operates the mesh, nobody else:
        `$SRV.STATS` counts it."""
        log.warning(DROPPED, reply=inbox, tenant=tenant)
        for endpoint in self._service._endpoints if self._service is not None else ():
            if endpoint._subject == subject:
                endpoint._num_errors += 1
                endpoint._last_error = DROPPED

    def _refuse_unread(
        self, quick: bool, streams: bool, words: list[bytes], _read: bytes, _begin: int, _end: int
    ) -> bool:
        """Refuses a request of a tenant that has no place, from its subject alone. So thousands at once are
        answered in less time than nats-py needs to make messages of them, and keep nobody else waiting."""
        inbox, tenant = reply_of(words), subjects.tenant_at(words[1].decode())
        full = self._quick.are_taken(tenant) if quick else self._waiting.are_taken(tenant, self._most(tenant))
        if not full or not is_inbox(inbox):
            return False
        self._on_full(tenant)
        if not self._unread:
            sending = asyncio.create_task(self._send_refusals(), name="refusals")
            self._tasks.add(sending)
            sending.add_done_callback(self._tasks.discard)
        self._unread.append(b"HPUB %s %s" % (inbox.encode(), REFUSAL))
        if streams:
            self._unread.append(b"PUB %s 0\r\n\r\n" % inbox.encode())
        return True

    async def _send_refusals(self) -> None:
        """Those of all requests that were read at once."""
        refusals, self._unread = b"".join(self._unread), []
        await self._client._send_command(refusals)
        await self._client._flush_pending()

    async def _serve(
        self,
        request: Request,
        request_type: type[RequestT],
        handler: Handler[RequestT],
        caller: Caller,
        rounds: Rounds,
    ) -> None:
        """Answers within a span of its own: this task does nothing else."""
        span, started_s = self._tracing.start_span(request.headers), time.time()
        enter(span)
        try:
            await self._answer(request.data, request_type, handler, caller, rounds)
        finally:
            if self._events is not None:
                subject = subjects.asked_on(request.subject)
                self._events.ended(Work(span, "server", subject, subject, started_s, time.time()))
            await caller.end()

    async def _opened(
        self, asked: str, handler: Handler[RequestT], request: RequestT, caller: Caller
    ) -> None:
        """What came with an API key is done if the key opens it."""
        key = await self._shown.key_of(caller.secret)
        caller.key = None if key is None else key.id
        caller.shown = await self._shown.check(key, caller.tenant, asked)
        await handler(request, caller)

    async def _answer(
        self,
        data: bytes,
        request_type: type[RequestT],
        handler: Handler[RequestT],
        caller: Caller,
        rounds: Rounds,
    ) -> None:
        request_id = None
        try:
            await rounds.turn(caller.tenant)
            request = parse(data, request_type)
            request_id = getattr(request, "request_id", None)
            self._let_in(caller.tenant)
            await handler(request, caller)
        except ChoirError as error:
            await caller.send_error(error, request_id)
        except asyncio.CancelledError:
            stops = NotReady(f"the {self._identity.service} stops; ask again under the same request_id")
            await caller.send_error(stops, request_id)
            raise
        except Exception as error:
            log.exception("an endpoint failed", request_id=request_id)
            await caller.send_error(InternalError(f"{type(error).__name__} in {self._identity.service}"))
