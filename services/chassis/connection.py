"""The connection to the broker: it never gives up, and it says at once when something is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import nats.errors
from faststream.nats import NatsBroker
from faststream.security import SASLPlaintext
from nats.aio.client import Client

from schemas.errors import ChoirError, PayloadTooLarge
from schemas.subjects import inbox_prefix
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.settings import MeshSection

RECONNECT_WAIT_S = 1
CONNECT_TIMEOUT_S = 5
PENDING_BYTES = 64 * 1024 * 1024
ENVELOPE_BYTES = 512
"""What a broker adds to a message of ours at most: subject and headers count as payload too."""

EXPECTED = (ChoirError, nats.errors.Error, OSError, TimeoutError)
"""What goes wrong with a connection; anything else is a fault of ours, and told with where it happened."""

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

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when the connection is lost, before it is made again."""
        self._on_disconnect.append(callback)

    def on_reconnect(self, callback: Callback) -> None:
        """Calls `callback` after every reconnection; again and again while what it asks cannot be had."""
        self._on_reconnect.append(callback)

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
            await self._tell(callback)

    async def _tell(self, callback: Callback) -> None:
        """An error must not reach the NATS client: it would never connect again."""
        try:
            await callback()
        except Exception as error:
            why = str(error) or type(error).__name__
            unforeseen = None if isinstance(error, EXPECTED) else error
            log.warning(
                "what happened meanwhile cannot be read yet, trying again", why=why, exc_info=unforeseen
            )
            retry = asyncio.create_task(self._tell_later(callback, self._times), name="reconnected")
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def _tell_later(self, callback: Callback, times: int) -> None:
        await asyncio.sleep(RECONNECT_WAIT_S)
        if times == self._times and not self._closing:
            await self._tell(callback)

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
        told only here."""
        if isinstance(error, EXPECTED):
            log.error("broker connection", error=str(error) or type(error).__name__)
        else:
            log.error("a message could not be taken", error=repr(error), exc_info=error)


def connection_options(mesh: MeshSection, identity: Identity, events: ConnectionEvents) -> dict[str, Any]:
    """Options for `nats.connect` and for FastStream's broker, which passes them on."""
    options: dict[str, Any] = {
        "servers": [mesh.url],
        "name": identity.instance,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "inbox_prefix": inbox_prefix(identity.service).encode(),
        "pending_size": PENDING_BYTES,
        "error_cb": events.failed,
        "disconnected_cb": events.disconnected,
        "reconnected_cb": events.reconnected,
    }
    if mesh.user is not None:
        options |= {"user": mesh.user, "password": mesh.password}
    return options


def open_broker(mesh: MeshSection, identity: Identity, events: ConnectionEvents) -> NatsBroker:
    """FastStream's broker on our connection options; not connected yet."""
    options = connection_options(mesh, identity, events)
    user, password = options.pop("user", None), options.pop("password", None)
    security = None if user is None else SASLPlaintext(username=user, password=password or "", use_ssl=False)
    return NatsBroker(logger=None, security=security, **options)


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
