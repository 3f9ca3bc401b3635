"""The metrics service: the ingest, and the endpoint for SQL."""

from __future__ import annotations

from schemas import subjects
from schemas.errors import ErrorBody
from schemas.nodes.lease import NodeState
from schemas.requests.queries import Sql
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Endpoints
from services.chassis.registry.lease import Load
from services.chassis.registry.tenants import Tenants
from services.metrics.ingest.loop import Ingest
from services.metrics.query.endpoint import Questions
from services.metrics.settings import MetricsSection
from services.metrics.store.database import Database
from services.metrics.store.housekeeping import Housekeeping

DESCRIPTION = "Keeps every event as a row, and answers SQL"


class Metrics:
    """The event database of a mesh."""

    def __init__(self, settings: MetricsSection) -> None:
        self._settings = settings

    async def start(self, mesh: ServiceContext) -> None:
        """Stores and answers from now on."""
        database = Database(
            self._settings.folder,
            self._settings.views,
            self._settings.memory_mb,
            threads=self._settings.threads,
            spill_mb=self._settings.spill_mb,
        )
        self._ingest = Ingest(mesh, database, self._settings)
        mesh.connection.on_disconnect(self._ingest.mark_unfresh)
        await self._ingest.start()
        self._housekeeping = Housekeeping(database, self._ingest, self._settings, mesh.loops)
        self._housekeeping.start()
        tenants = Tenants(mesh.client, mesh.clock.now)
        await tenants.start()
        mesh.connection.on_reconnect(tenants.resume)
        mesh.connection.on_missed(subjects.bucket_updates(subjects.TENANTS_BUCKET), tenants.resume)

        def sees_all(tenant: str) -> bool:
            tenants.check(tenant)
            return tenants.sees_all(tenant)

        self._questions = Questions(mesh.client, database, self._settings, sees_all)
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION, now=mesh.clock.now)
        await self._endpoints.start()
        await self._endpoints.add(subjects.doors(subjects.SQL), Sql, self._questions.handle)

    async def stop(self) -> None:
        """Answers what is asked, stores what it has, and closes the database."""
        await self._endpoints.stop()
        await self._questions.stop()
        await self._housekeeping.stop()
        await self._ingest.stop()

    def load(self) -> Load:
        """Broken while events cannot be stored; a problem alone says what has happened to the database."""
        state: NodeState = "ready" if self._ingest.storing else "broken"
        slots, problem = self._settings.queries_at_once, self._ingest.problem
        if problem is None and (ended := self._questions.problem) is not None:
            problem = ErrorBody(code="internal", message=ended)
        return Load(state=state, slots=slots, busy=self._questions.busy, problem=problem)
