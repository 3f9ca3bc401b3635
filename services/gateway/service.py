"""The gateway as a service: a client of the mesh, and the HTTP interfaces over it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from schemas import subjects
from schemas.errors import ConfigurationError
from schemas.subjects import LOCAL_TENANT, service_inbox
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.endpoints import Endpoints
from services.chassis.process.cancelling import ended
from services.chassis.registry.lease import Load
from services.client.client import Choir
from services.gateway.access.self_check import check_locked
from services.gateway.http.app import build_app
from services.gateway.http.connection.listener import Listener
from services.gateway.http.context import GatewayContext
from services.gateway.openai.batches.runner import BatchRunner
from services.gateway.settings import GatewaySettings

DESCRIPTION = "Answers HTTP clients of Ollama and OpenAI"


class Gateway:
    """Any number of them may run: none has state that matters."""

    def __init__(self, settings: GatewaySettings, identity: Identity) -> None:
        self._settings = settings
        self._identity = identity
        self._stack = AsyncExitStack()
        self._listener: Listener | None = None

    async def start(self, mesh: ServiceContext) -> None:
        """Answers from now on; if its port is taken, as soon as it is free. One that wants keys, and would
        serve who has none, raises InternalError."""
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        await self._endpoints.start()
        choir = Choir(
            section=self._settings.mesh,
            name=self._identity.instance,
            tenant=LOCAL_TENANT,
            inbox=service_inbox(self._identity.service, self._identity.instance),
        )
        asked = await self._stack.enter_async_context(choir)
        context = GatewayContext(asked, self._settings.gateway, mesh.client, mesh.events, mesh.clock.now)
        self._stack.push_async_callback(context.settle)
        await context.keyring.start()
        mesh.connection.on_reconnect(context.keyring.resume)
        for bucket in (subjects.KEYS_BUCKET, subjects.TENANTS_BUCKET):
            mesh.connection.on_missed(subjects.bucket_updates(bucket), context.keyring.resume)
        app = build_app(context)
        if self._settings.gateway.keys_needed:
            await check_locked(app)
        self._models = mesh.loops.start(context.models.keep_fresh(), "the list of models")
        self._batches = mesh.loops.start(BatchRunner(context).run(app), "batches")
        self._listener = Listener(app, self._settings.gateway, mesh.changed)
        await self._listener.start(mesh.loops)

    async def stop(self) -> None:
        """Takes nothing more, and ends what is open."""
        await self._endpoints.stop()
        if self._listener is not None:
            await self._listener.stop()
            await ended((self._batches, self._models))
        await self._stack.aclose()

    def load(self) -> Load:
        """Broken while it cannot listen."""
        assert self._listener is not None
        if self._listener.problem is not None:
            return Load(state="broken", problem=ConfigurationError(self._listener.problem).body())
        return Load(slots=self._settings.gateway.max_connections, busy=self._listener.busy)
