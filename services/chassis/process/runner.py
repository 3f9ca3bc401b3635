"""The life of a service process: settings, connection, start, drain on SIGTERM, and its health.

FastStream owns the lifecycle (hooks, health routes); the work itself is done by what `start` builds on the
connection.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Protocol

import structlog
import uvloop
from faststream import FastStream
from faststream.asgi import AsgiResponse, get, make_ping_asgi
from faststream.asgi.types import ASGIApp, Scope

from schemas.errors import ChoirError, ConfigurationError, InternalError
from schemas.events import ServiceStarted, ServiceStopped
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.logs import configure_logs, get_logger
from services.chassis.nats.connecting.address import without_password
from services.chassis.nats.connection import ConnectionEvents, open_broker
from services.chassis.process.cancelling import ended
from services.chassis.process.garbage import search_while_serving
from services.chassis.process.supervise import Loops
from services.chassis.registry.host_sampler import HostSampler
from services.chassis.registry.lease import Lease, Load
from services.chassis.registry.namesake import refuse_namesake
from services.chassis.settings import (
    OtlpSection,
    ServiceSettings,
    SettingsT,
    forget_secrets,
    load_settings,
)
from services.chassis.telemetry.events import Spans

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

log = get_logger("chassis.service")


class Service(Protocol):
    """What a service adds to the chassis."""

    async def start(self, mesh: ServiceContext) -> None:
        """Begins to work; returns when it is ready."""

    async def stop(self) -> None:
        """Drains: takes nothing more, finishes what it has."""

    def load(self) -> Load:
        """What its lease says."""


class ServiceRunner:
    """Runs one service in this process."""

    def __init__(self, service: Service, identity: Identity, settings: ServiceSettings) -> None:
        self._service = service
        self._identity = identity
        self._settings = settings
        self._connection = ConnectionEvents()
        self._broker = open_broker(settings.mesh, identity, self._connection)
        self._spans = open_spans(settings.otlp, identity)
        self._lease: Lease | None = None
        self._sampler: HostSampler | None = None
        self._mesh: ServiceContext | None = None
        self._loops = Loops(_end_this_process)

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT. Raises InternalError if it ends because a loop of it has failed."""
        await self._run()
        if self._loops.failure is not None:
            raise InternalError(f"the service has ended: {self._loops.failure}")

    async def _run(self) -> None:
        app = FastStream(self._broker, logger=None, after_startup=[self._start], on_shutdown=[self._stop])
        health = self._settings.health
        if health.port == 0:
            await _run_until_asked_to_end(app)
            return
        routes: list[tuple[str, ASGIApp]] = [
            ("/health/live", make_ping_asgi(self._broker, timeout=2.0)),
            ("/health/ready", self._ready()),
        ]
        import uvicorn  # a tenth of the start of a service that has no health port

        # uvicorn raises the signal that ended it again when it has stopped: nothing is left to end then.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        config = uvicorn.Config(
            app.as_asgi(routes), host=health.host, port=health.port, log_config=None, log_level="warning"
        )
        await uvicorn.Server(config).serve()

    def _ready(self) -> ASGIApp:
        @get
        async def ready(_scope: Scope) -> AsgiResponse:
            if self._lease is None:
                return AsgiResponse(b"starting", 503)
            lease = await self._lease.current()
            return AsgiResponse(lease.to_bytes(), 200 if lease.state == "ready" else 503)

        return ready

    async def _start(self) -> None:
        client = await self._broker.connect()
        mesh = ServiceContext(
            client, self._identity, self._connection, self._settings.events, self._spans, self._loops
        )
        await refuse_namesake(mesh.client, self._identity)
        await mesh.clock.start(self._loops)
        await self._service.start(mesh)
        self._mesh = mesh
        try:
            await refuse_namesake(mesh.client, self._identity)  # two hosts may have begun at the same time
        except ChoirError:
            await self._service.stop()
            raise
        lease = Lease(client, self._identity, self._load, self._loops, mesh.clock)
        self._lease = lease
        await lease.start()  # meanwhile a loop may fail, and the lease be given back
        mesh.on_change(lease.renew_soon, lease.renew)
        mesh.events.publish(ServiceStarted, pid=self._identity.pid)
        if self._settings.events.enabled:
            interval_s = self._settings.events.sample_interval_s
            self._sampler = HostSampler(
                client, mesh.events, mesh.tracing, self._service.load, interval_s, self._loops
            )
            self._sampler.start()
        log.info("ready", url=without_password(self._settings.mesh.url))

    def _load(self) -> Load:
        """What the service says of itself; if it has no problem, that of the connection or of the events."""
        load = self._service.load()
        if load.problem is not None:
            return load
        events = None if self._mesh is None else self._mesh.events.problem
        return replace(load, problem=self._connection.problem or events)

    async def _stop(self) -> None:
        """Drains, and gives the lease back; at once, if the service does not do its part any more."""
        if self._loops.failure is not None:
            await self._give_lease_back()
        try:
            if self._mesh is not None:
                await self._drain(self._mesh)
        finally:
            await self._give_lease_back()
            self._connection.closing()

    async def _drain(self, mesh: ServiceContext) -> None:
        log.info("draining")
        if self._sampler is not None:
            self._sampler.stop()
        await self._service.stop()
        mesh.clock.stop()
        mesh.events.publish(ServiceStopped)
        await mesh.events.close()

    async def _give_lease_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.stop()


async def _run_until_asked_to_end(app: FastStream) -> None:
    """Like `FastStream.run`, which looks ten times a second whether it is to end: here a signal says so."""
    asked, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    starting, waiting = asyncio.create_task(app.start()), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await waiting
    finally:
        await ended((starting, waiting))
    await app.stop()


def _end_this_process() -> None:
    """As if somebody had asked it to: it gives back what it has."""
    os.kill(os.getpid(), signal.SIGTERM)


def open_spans(otlp: OtlpSection, identity: Identity) -> Spans | None:
    """The export of spans, if a collector is named; ConfigurationError if OpenTelemetry is not installed."""
    if otlp.endpoint is None:
        return None
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        raise ConfigurationError(
            "otlp.endpoint is set, and OpenTelemetry is not installed: `pip install 'choir[otlp]'`, "
            "or leave the endpoint out",
            field="otlp.endpoint",
        )
    from services.chassis.telemetry.otlp import SpanExport

    return SpanExport(otlp.endpoint, identity)


def run_service(
    name: str,
    settings_type: type[SettingsT],
    build: Callable[[SettingsT, Identity], Service],
) -> None:
    """Runs a service as a process. Exit code 2 is a fault in the settings, 1 any other."""
    search_while_serving()
    try:
        settings = load_settings(settings_type)
        forget_secrets()
        identity = Identity.of(name, settings.instance, settings.host_id)
        configure_logs(settings.logging, identity)
        uvloop.run(ServiceRunner(build(settings, identity), identity, settings).run())
    except ConfigurationError as error:
        _complain(error)
        sys.exit(EXIT_CONFIGURATION)
    except ChoirError as error:
        _complain(error)
        sys.exit(EXIT_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(EXIT_FAILED)


def _complain(error: ChoirError) -> None:
    structlog.get_logger("chassis.service").error("cannot run", code=error.code, why=error.message)
