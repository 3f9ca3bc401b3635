"""The connection that frames travel over: the client's side of the NATS protocol, as far as a stage needs it.

What arrives is handed over in the very call in which the loop has read it, and what is published is written
before the loop goes on. A general client passes a message from task to task; between two steps, when weights
have gone through the caches, each of these costs a stage a twentieth of a millisecond and more.

The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from schemas.errors import BrokerUnavailable, ConfigurationError, PayloadTooLarge
from schemas.pipelines.activations import MAX_FRAME_BYTES
from services.chassis.logs import get_logger

END = b"\r\n"
MESSAGE = b"MSG "
DEFAULT_PORT = 4222
PING_INTERVAL_S = 20.0
MOST_UNSENT_BYTES = 64 * 1024 * 1024

log = get_logger("shard_stage.frame_connection")


async def _nothing() -> None:
    """The default callback: does nothing."""


async def _no_error(_error: Exception) -> None:
    """The default callback for errors: does nothing."""


def _no_matter(_error: Exception) -> None:
    """The default callback for the end of a link: does nothing."""


async def _called(callback: Callable[[], Awaitable[None]]) -> None:
    """Calls foreign code: if it fails that is logged, and the connection is kept all the same."""
    try:
        await callback()
    except Exception:
        log.exception("the handler of a lost connection failed")


@dataclass(frozen=True)
class LinkOptions:
    """Options of a link, with the names that `nats.connect` gives them."""

    servers: list[str]
    name: str = ""
    user: str | None = None
    password: str | None = None
    nkeys_seed: str | None = None
    tls: ssl.SSLContext | None = None
    tls_handshake_first: bool = False
    connect_timeout: float = 5.0
    reconnect_time_wait: float = 1.0
    disconnected_cb: Callable[[], Awaitable[None]] = _nothing
    reconnected_cb: Callable[[], Awaitable[None]] = _nothing
    error_cb: Callable[[Exception], Awaitable[None]] = _no_error

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> LinkOptions:
        """Those of the options for `nats.connect` that a link knows."""
        return cls(**{name: options[name] for name in cls.__dataclass_fields__ if name in options})

    @property
    def addresses(self) -> list[SplitResult]:
        """Where the brokers are. Raises ConfigurationError for an address that is no broker's."""
        addresses = [urlsplit(server) for server in self.servers]
        for address, server in zip(addresses, self.servers, strict=True):
            if address.scheme not in ("nats", "tls") or address.hostname is None:
                raise ConfigurationError(
                    f"{server} is not usable between stages: write nats://host:port or tls://host:port",
                    field="mesh.url",
                )
        return addresses


@dataclass
class Wire(asyncio.Protocol):
    """One connection, from the broker's greeting to its loss. `rest` begins with what is not whole yet."""

    on_message: Callable[[bytes], None]
    on_fault: Callable[[Exception], None]
    greeting: asyncio.Future[dict[str, Any]]
    lost: asyncio.Future[None]
    transport: asyncio.Transport | None = None
    rest: bytes = b""
    pongs: deque[asyncio.Future[None]] = field(default_factory=deque)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        reason = BrokerUnavailable(f"the connection to the broker is lost: {exc or 'it was closed'}")
        waiting: list[asyncio.Future[Any]] = [self.greeting, *self.pongs]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(reason)
                answer.exception()  # whoever waits is told; where nobody does, that is no fault
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        start = 0
        while (end := data.find(END, start)) >= 0:
            following = end + len(END)
            if data.startswith(MESSAGE, start):
                first, following = following, following + int(data[data.rfind(b" ", start, end) : end])
                if following + len(END) > len(data):
                    break
                self.on_message(data[first:following])
                following += len(END)
            else:
                self._control(data[start:end])
            start = following
        self.rest = data[start:]

    def _control(self, line: bytes) -> None:
        word, _, argument = line.partition(b" ")
        match word.upper():
            case b"PING":
                self.write(b"PONG", END)
            case b"PONG" if self.pongs:
                waiting = self.pongs.popleft()
                if not waiting.done():
                    waiting.set_result(None)
            case b"INFO" if not self.greeting.done():
                self.greeting.set_result(json.loads(argument))
            case b"-ERR":
                self.on_fault(BrokerUnavailable(f"the broker says {argument.decode(errors='replace')}"))

    def write(self, *parts: bytes) -> None:
        """Sends these bytes, one after another; nothing where the connection is gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(parts)

    def ping(self) -> asyncio.Future[None]:
        """Done when the broker has read everything that was written so far."""
        waiting = asyncio.get_running_loop().create_future()
        self.pongs.append(waiting)
        self.write(b"PING", END)
        return waiting

    def abort(self) -> None:
        """Gives the connection up."""
        if self.transport is not None:
            self.transport.abort()


class FrameLink:
    """A connection with one subscription, that is made again whenever it is lost. All on one loop.

    What is published while there is none is dropped, and what was on its way may be: whoever is told of a
    reconnection has to find out. Nothing that is published comes back on the same link.
    """

    def __init__(
        self,
        options: LinkOptions,
        on_message: Callable[[bytes], None],
        on_end: Callable[[Exception], None] = _no_matter,
    ) -> None:
        """`on_message` gets the payload of each message. `on_end` is called if the link ends by a fault, and
        is not made again."""
        self._options = options
        self._on_message = on_message
        self._on_end = on_end
        self._wire: Wire | None = None
        self._max_payload = MAX_FRAME_BYTES
        self._subject = ""
        self._subscription = 0
        self._task: asyncio.Task[None] | None = None
        self._addresses: Iterator[SplitResult] = iter(())
        self._reporting: set[asyncio.Future[None]] = set()

    async def open(self) -> None:
        """Returns when the broker has answered; tries without end. Raises ConfigurationError for an address
        that is no broker's."""
        self._addresses = cycle(self._options.addresses)
        if self._task is None:
            wire = await self._connected()
            self._task = asyncio.create_task(self._keep(wire), name="frame connection")
            self._task.add_done_callback(self._ended)

    @property
    def carried(self) -> int:
        """The most bytes of a message that the broker carries and a stage reads."""
        return min(self._max_payload, MAX_FRAME_BYTES)

    async def listen(self, subject: str) -> None:
        """From now on messages on this subject arrive, and on no other."""
        if subject == self._subject:
            return
        old, self._subject = self._subscription, subject
        self._subscription += 1
        if self._wire is not None:
            self._wire.write(*([f"UNSUB {old}".encode(), END] if old else []), self._listening())
            await self.flush()

    def publish(self, subject: str, payload: bytes) -> None:
        """Sends a message. Raises PayloadTooLarge for one that the broker does not carry."""
        wire = self._wire
        if wire is None or wire.transport is None:
            return
        if len(payload) > self._max_payload:
            raise PayloadTooLarge(f"the broker carries {self._max_payload} bytes, not {len(payload)}")
        wire.write(b"PUB %b %d\r\n" % (subject.encode(), len(payload)), payload, END)
        if wire.transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            wire.abort()

    async def flush(self) -> None:
        """Returns when the broker has read all that was sent, or the connection is lost."""
        if self._wire is not None:
            await asyncio.wait([self._wire.ping()], timeout=self._options.connect_timeout)

    async def close(self) -> None:
        """Sends what is written, and ends."""
        if self._task is None:
            return
        await self.flush()
        self._task.cancel()
        await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            log.error("the link between stages has ended", error=repr(error))
            self._on_end(error)

    # --- connecting ---------------------------------------------------------------------

    async def _keep(self, wire: Wire) -> None:
        """Watches over connections, one after the other."""
        try:
            while True:
                await self._until_lost(wire)
                self._wire = None
                await _called(self._options.disconnected_cb)
                wire = await self._connected()
                await _called(self._options.reconnected_cb)
        finally:
            self._wire = None
            wire.abort()

    async def _until_lost(self, wire: Wire) -> None:
        """Returns when the connection is lost, or the broker has not answered for too long."""
        while not wire.lost.done():
            pong = wire.ping()
            await asyncio.wait([wire.lost], timeout=PING_INTERVAL_S)
            if not pong.done():  # the thread may have stood still all the while, with the answer unread
                await asyncio.wait([pong], timeout=self._options.connect_timeout)
            if not pong.done():
                wire.abort()
                await asyncio.wait([wire.lost])

    async def _connected(self) -> Wire:
        while True:
            try:
                async with asyncio.timeout(self._options.connect_timeout):
                    return await self._connect()
            except (OSError, BrokerUnavailable) as error:  # a timeout is an OSError
                await self._options.error_cb(error)
                await asyncio.sleep(self._options.reconnect_time_wait)

    async def _connect(self) -> Wire:
        loop, address = asyncio.get_running_loop(), next(self._addresses)
        wire = Wire(self._on_message, self._report, loop.create_future(), loop.create_future())
        first = self._options.tls if self._options.tls_handshake_first else None
        await loop.create_connection(
            lambda: wire, str(address.hostname), address.port or DEFAULT_PORT, ssl=first
        )
        try:
            info = await wire.greeting
            if first is None and (address.scheme == "tls" or info.get("tls_required")):
                await self._secure(wire, address.hostname)
            wire.write(b"CONNECT ", json.dumps(self._words(address, info)).encode(), END, self._listening())
            await wire.ping()
        except BaseException:
            wire.abort()
            raise
        self._max_payload, self._wire = int(info.get("max_payload", MAX_FRAME_BYTES)), wire
        return wire

    async def _secure(self, wire: Wire, host: str | None) -> None:
        assert wire.transport is not None
        context = self._options.tls or ssl.create_default_context()
        wire.transport = await asyncio.get_running_loop().start_tls(
            wire.transport, wire, context, server_hostname=host
        )

    def _words(self, address: SplitResult, info: Mapping[str, object]) -> dict[str, object]:
        """The CONNECT message of this client, in answer to the broker's `info`."""
        words: dict[str, object] = {
            "verbose": False,
            "pedantic": False,
            "echo": False,
            "headers": False,
            "lang": "python",
            "version": "1",
            "protocol": 1,
            "name": self._options.name,
        }
        if self._options.nkeys_seed is not None:
            return words | signed(Path(self._options.nkeys_seed), str(info.get("nonce", "")))
        if self._options.user is not None:
            return words | {"user": self._options.user, "pass": self._options.password or ""}
        if address.username is None:
            return words
        if address.password is None:
            return words | {"auth_token": unquote(address.username)}
        return words | {"user": unquote(address.username), "pass": unquote(address.password)}

    def _listening(self) -> bytes:
        return f"SUB {self._subject} {self._subscription}\r\n".encode() if self._subject else b""

    def _report(self, fault: Exception) -> None:
        task = asyncio.ensure_future(self._options.error_cb(fault))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)


def signed(seed: Path, nonce: str) -> dict[str, object]:
    """Proof of the seed in a file: a signature of the nonce that the broker has sent."""
    import nkeys  # only where a broker knows keys

    pair = nkeys.from_seed(bytearray(seed.read_bytes().strip()))
    proof = {
        "nkey": pair.public_key.decode(),
        "sig": base64.urlsafe_b64encode(pair.sign(nonce.encode())).rstrip(b"=").decode(),
    }
    pair.wipe()
    return proof
