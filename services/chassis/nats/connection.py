"""The connection to the broker: it never gives up, and it says at once when something is refused."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import nats.aio.client
import nats.errors
from faststream.nats import NatsBroker, NatsNKey, NatsUserPassword
from faststream.nats.security import NatsSecurity
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas.errors import ChoirError, ErrorBody, Overloaded, PayloadTooLarge
from schemas.subjects import service_inbox
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.connecting.ending import end_in_time
from services.chassis.settings import MeshSection

RECONNECT_WAIT_S = 1
CONNECT_TIMEOUT_S = 5
PING_INTERVAL_S = 20.0
UNANSWERED_PINGS = 2
"""After so many that were not answered the next one is not sent: the connection is made anew. A broker whose
host or network has gone does not hang up. A broker that stands still for a moment is not left for that."""
PENDING_BYTES = 64 * 1024 * 1024
ENVELOPE_BYTES = 512
"""What a broker adds to a message of ours at most: subject and headers count as payload too."""

MISSED_PAUSE_S = 0.5
MISSED_TOLD_S = 60.0

EXPECTED = (ChoirError, nats.errors.Error, OSError, TimeoutError)
"""What goes wrong with a connection; anything else is a fault of ours, and told with where it happened."""

REFUSED = re.compile(r'permissions violation for \w+ to "([^"]+)"', re.IGNORECASE)
"""How a broker says which subject somebody may not use."""

Callback = Callable[[], Awaitable[None]]

log = get_logger("chassis.connection")


class ConnectionEvents:
    """Tells those who asked when the connection is lost and when it has come back."""

    def __init__(self) -> None:
        self._on_disconnect: list[Callable[[], None]] = []
        self._on_reconnect: list[Callback] = []
        self._closing = False
        self._times = 0
        self._retries: set[asyncio.Task[None]] = set()
        self._on_missed: dict[str, list[Callback]] = {}
        self._tried: dict[str, asyncio.Event] = {}
        self._missed: Counter[str] = Counter()
        self._missed_at_s = -math.inf
        self.missed = 0

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when the connection is lost, before it is made again."""
        self._on_disconnect.append(callback)

    def on_reconnect(self, callback: Callback) -> None:
        """Calls `callback` after every reconnection; again and again while what it asks cannot be had."""
        self._on_reconnect.append(callback)

    def on_missed(self, subject: str, callback: Callback) -> None:
        """Calls `callback` a moment after messages for the subscription of `subject` were dropped, because
        this process was too slow to take them; again and again while what it asks cannot be had."""
        self._on_missed.setdefault(subject, []).append(callback)

    async def may_hear(self, client: Client, subject: str) -> bool:
        """Whether the broker lets this process listen to a subject. What passes there meanwhile is not
        taken."""
        refused = self._tried.setdefault(subject.lower(), asyncio.Event())
        try:
            trial = await client.subscribe(subject, cb=_nothing)
            try:
                for _ in range(2):  # the first ping of nats-py overtakes what is still to be written
                    await client.flush()
            finally:
                await trial.unsubscribe()
        finally:
            self._tried.pop(subject.lower(), None)
        return not refused.is_set()

    @property
    def problem(self) -> ErrorBody | None:
        """What the lease says of messages that were dropped here within the last minute."""
        if time.monotonic() > self._missed_at_s + MISSED_TOLD_S:
            return None
        return Overloaded(
            f"this process was too slow to take its messages: {self.missed} were dropped since it started, "
            "some of them within the last minute"
        ).body()

    def closing(self) -> None:
        """From now on a lost connection is no news."""
        self._closing = True
        for retry in self._retries:
            retry.cancel()

    async def reconnected(self) -> None:
        """For the NATS client to call."""
        log.warning("reconnected to the broker")
        self._times += 1
        for callback in self._on_reconnect:
            await self._call(callback)

    async def _call(self, callback: Callback) -> None:
        """An error must not reach the NATS client: it would never connect again."""
        try:
            await callback()
        except Exception as error:
            why = str(error) or type(error).__name__
            unforeseen = None if isinstance(error, EXPECTED) else error
            log.warning(
                "what happened meanwhile cannot be read yet, trying again", why=why, exc_info=unforeseen
            )
            retry = asyncio.create_task(self._call_later(callback, self._times), name="reconnected")
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def _call_later(self, callback: Callback, times: int) -> None:
        await asyncio.sleep(RECONNECT_WAIT_S)
        if times == self._times and not self._closing:
            await self._call(callback)

    async def disconnected(self) -> None:
        """For the NATS client to call."""
        for callback in self._on_disconnect:
            try:
                callback()
            except Exception:
                log.exception("somebody cannot be told that the connection is lost")
        if not self._closing:
            log.warning("connection to the broker lost, trying again")

    async def failed(self, error: Exception) -> None:
        """For the NATS client to call: slow consumers, forbidden subjects and errors of callbacks are
        told only here, and that an attempt to connect has failed. After `closing` no other attempt is made:
        Python 3.11 loses a cancellation that comes while an attempt fails, and the client would go on for
        ever."""
        if self._closing and isinstance(error, OSError):
            raise asyncio.CancelledError
        refused = REFUSED.search(str(error))
        if isinstance(error, nats.errors.SlowConsumerError):
            self._miss(error.sub.subject)
        elif refused is not None and refused[1].lower() in self._tried:
            self._tried[refused[1].lower()].set()
        elif isinstance(error, EXPECTED):
            log.error("broker connection", error=str(error) or type(error).__name__)
        else:
            log.error("a message could not be taken", error=repr(error), exc_info=error)

    def _miss(self, subject: str) -> None:
        """Told once for all messages of a moment: there is one error for each."""
        if not self._missed:
            missing = asyncio.create_task(self._report_missed(), name="missed")
            self._retries.add(missing)
            missing.add_done_callback(self._retries.discard)
        self._missed[subject] += 1
        self.missed += 1
        self._missed_at_s = time.monotonic()

    async def _report_missed(self) -> None:
        await asyncio.sleep(MISSED_PAUSE_S)
        missed, self._missed = self._missed, Counter()
        for subject, count in missed.items():
            log.error("messages were dropped: this process was too slow", subject=subject, count=count)
            for callback in self._on_missed.get(subject, ()):
                await self._call(callback)


async def _nothing(_msg: Msg) -> None:
    """Somebody only wants to know whether it may listen."""


def connection_options(mesh: MeshSection, identity: Identity, events: ConnectionEvents) -> dict[str, Any]:
    """Options for `nats.connect` and for FastStream's broker, which passes them on."""
    end_in_time()
    options: dict[str, Any] = {
        "servers": mesh.servers,
        "dont_randomize": True,
        "name": identity.instance,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": UNANSWERED_PINGS,
        "inbox_prefix": service_inbox(identity.service, identity.instance).encode(),
        "pending_size": PENDING_BYTES,
        "error_cb": events.failed,
        "disconnected_cb": events.disconnected,
        "reconnected_cb": events.reconnected,
    }
    return options | mesh.credentials


def read_at_once(size_bytes: int) -> None:
    """Connections that this process makes from now on read so much at once: for one that takes megabytes.

    nats-py reads 32 KiB, and has the transport pause at twice that, a dozen times for a message of 512 KiB.
    """
    nats.aio.client.DEFAULT_BUFFER_SIZE = size_bytes


def open_broker(mesh: MeshSection, identity: Identity, events: ConnectionEvents) -> NatsBroker:
    """FastStream's broker on our connection options; not connected yet."""
    options = connection_options(mesh, identity, events)
    return NatsBroker(logger=None, security=_security(options), **options)


def _security(options: dict[str, Any]) -> NatsSecurity:
    """Takes out of the options what FastStream is told in words of its own."""
    context = options.pop("tls", None)
    first = options.pop("tls_handshake_first", False)
    user, password = options.pop("user", None), options.pop("password", None)
    seed = options.pop("nkeys_seed", None)
    use_ssl = context is not None
    if seed is not None:
        return NatsNKey.from_file(seed, ssl_context=context, use_ssl=use_ssl, tls_handshake_first=first)
    if user is not None:
        return NatsUserPassword(
            user, password or "", ssl_context=context, use_ssl=use_ssl, tls_handshake_first=first
        )
    return NatsSecurity(ssl_context=context, use_ssl=use_ssl, tls_handshake_first=first)


def clustered(client: Client) -> bool:
    """Whether the broker that a client is connected to is one of several."""
    return bool(client._server_info.get("cluster"))


def envelope_bytes(headers: Mapping[str, str] | None) -> int:
    """What headers take of what a broker carries in one message."""
    if not headers:
        return 0
    lines = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
    return len("NATS/1.0\r\n\r\n") + lines


def check_payload(client: Client, payload: bytes, field: str = "prompt") -> None:
    """Raises PayloadTooLarge, naming `field`, for what the broker would answer with a dropped connection."""
    limit = client.max_payload - ENVELOPE_BYTES
    if len(payload) > limit:
        raise PayloadTooLarge(
            f"{field}: the message has {len(payload)} bytes, the broker carries {limit}; "
            "shorten it or raise max_payload in section [broker]",
            field=field,
        )
