"""The listening socket: opened as soon as its port is free, closed in order.

uvicorn's own server would take the signals of the process, which are the chassis's, and wake up ten times a
second; so its protocol is used without it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from schemas.errors import ConfigurationError
from services.chassis.logs import get_logger
from services.chassis.nats.connecting.address import why
from services.chassis.process.cancelling import ended
from services.chassis.process.stopping import ENDPOINTS_PATIENCE_S
from services.chassis.process.supervise import Loops
from services.gateway.http.connection.protocol import protocol_factory
from services.gateway.settings import GatewaySection

RETRY_S = 2.0
BACKLOG = 1_024
KEEP_ALIVE_S = 65

log = get_logger("gateway.listener")


class Listener:
    """Listens for HTTP. `problem` says why it does not yet, None if it does; `changed` is told when
    that is over."""

    def __init__(self, app: ASGIApp, settings: GatewaySection, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._config = uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", interface="asgi3", loop="none",
            log_config=None, access_log=False, server_header=False, date_header=False,
            proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_keep_alive=KEEP_ALIVE_S, limit_concurrency=settings.max_connections,
        )  # fmt: skip
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        self.problem: str | None = None
        self.port = settings.port

    async def start(self, loops: Loops) -> None:
        """Listens from now on, or, if the port is taken, from when it is free."""
        self._config.load()
        self._tls = tls_context(self._settings)
        if not await self._opened():
            log.error("not listening", why=self.problem)
            self._waiting = loops.start(self._open_later(), "the listening socket")

    async def _open_later(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if await self._opened():
                break
        self._changed()
        await asyncio.Event().wait()  # a loop of the service does not end by itself

    async def _opened(self) -> bool:
        host, port = self._settings.host, self._settings.port
        create = protocol_factory(self._settings, self._config, self._state)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                create, host, port, backlog=BACKLOG, reuse_address=True, ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self._settings.head_timeout_s,
            )  # fmt: skip
        except OSError as error:
            self.problem = (
                f"the gateway cannot listen at {host}:{port}: {why(error)}; end what listens there, or set "
                "another port in section [gateway]"
            )
            return False
        self.port = _port_of(self._server)
        self.problem = None
        log.info("listening", host=host, port=self.port, tls=self._tls is not None)
        return True

    @property
    def busy(self) -> int:
        """How many requests are being answered."""
        return len(self._state.tasks)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    async def stop(self, patience_s: float = ENDPOINTS_PATIENCE_S) -> None:
        """Takes no more connections, gives open requests a little time, and closes what is left."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()  # idle ones at once, the others after their response
        if self._state.tasks:
            await asyncio.wait(tuple(self._state.tasks), timeout=patience_s)
        await ended(tuple(self._state.tasks))
        for connection in tuple(self._state.connections):
            connection.transport.abort()


def _port_of(server: asyncio.Server) -> int:
    listening: socket.socket = server.sockets[0]
    port: int = listening.getsockname()[1]
    return port


def tls_context(settings: GatewaySection) -> ssl.SSLContext | None:
    """How to speak https; None where the gateway speaks http. Raises ConfigurationError."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # an SSLError is one
        raise ConfigurationError(
            f"gateway.tls_certificate: {certificate} with {key} cannot be used: {error.strerror or error}",
            field="gateway.tls_certificate",
        ) from error
    return context
