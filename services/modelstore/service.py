"""The model store as a service: ranges for whoever asks, jobs, and the endpoint for clients."""

from __future__ import annotations

import asyncio

from schemas import subjects
from schemas.errors import ChoirError, ConfigurationError
from schemas.nodes.lease import StoreOffer
from schemas.nodes.model_store import ManageStore
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Endpoints
from services.chassis.registry.directory import Directory
from services.chassis.registry.lease import Load
from services.modelstore.copies import Copies
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.named_parts import NamedParts
from services.modelstore.files.range_server import RangeServer
from services.modelstore.held import HeldModelsEndpoint
from services.modelstore.hub.pull import HubPuller
from services.modelstore.jobs.adding import add
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.pulling import Puller
from services.modelstore.jobs.queue import JobQueue
from services.modelstore.jobs.space import Space
from services.modelstore.requests import HUB_PREFIX, SERVICE, StoreRequests
from services.modelstore.settings import ModelStoreSection

DESCRIPTION = "Keeps models, and gives their bytes to whoever needs them"
KNOWN, JOBS, NAMED = "known", "jobs", "named"

log = get_logger("modelstore")


class ModelStore:
    """One host's part of the store of the mesh. What it knows is on its disk and in the catalogue."""

    def __init__(self, settings: ModelStoreSection, identity: Identity) -> None:
        self._settings = settings
        self._identity = identity
        self._known = KnownFiles(settings.folder / KNOWN)
        self._named = NamedParts(settings.folder / NAMED)
        self._space = Space(settings, self._known)
        self._background: set[asyncio.Task[None]] = set()

    async def start(self, mesh: ServiceContext) -> None:
        """Answers, and goes on with what was not done."""
        self._mesh = mesh
        try:
            await asyncio.to_thread(self._known.load)
        except OSError as error:
            raise ConfigurationError(
                f"modelstore.folder: {self._settings.folder} cannot be used: {error.strerror}",
                field="modelstore.folder",
            ) from error
        self._directory = Directory(mesh.client)
        await self._directory.start()
        catalogue = ModelCatalogue(mesh.client)
        self._holdings = Holdings(catalogue, self._known, self._identity, mesh.clock)
        await self._holdings.reconcile()
        self._copies = copies = Copies(
            self._identity.instance,
            catalogue,
            self._known,
            self._named,
            self._holdings,
            self._live,
            self._pull_soon,
            lambda: self._space.free_bytes,
            lambda: self._directory.nodes,
        )
        self._puller = Puller(
            mesh.client,
            self._identity.instance,
            self._settings.folder,
            self._settings.patience_s,
            catalogue,
            self._known,
            self._holdings,
            self._space,
            copies.check_allowed,
        )
        self._hub = HubPuller(
            mesh.client,
            self._identity.instance,
            self._settings,
            self._known,
            self._holdings,
            self._puller,
            mesh.clock,
        )
        self._ranges = RangeServer(mesh.client, self._identity.instance, self._known, self._puller.partial)
        await self._ranges.start()
        self._held = HeldModelsEndpoint(
            mesh.client, self._identity.instance, catalogue, self._known, self._named
        )
        await self._held.start()
        self._jobs = JobQueue(self._settings.folder / JOBS, self._identity, self._work)
        requests = StoreRequests(
            mesh.client,
            self._identity,
            self._directory,
            catalogue,
            self._jobs,
            copies,
            self._space,
            self._held.look_again,
        )
        await requests.start()
        self._endpoints = Endpoints(
            mesh.client,
            mesh.identity,
            DESCRIPTION,
            events=mesh.events,
            tracing=mesh.tracing,
            now=mesh.clock.now,
        )
        await self._endpoints.start()
        await self._endpoints.add(subjects.doors(subjects.STORE), ManageStore, requests.handle)
        mesh.connection.on_reconnect(self._reconnected)
        mesh.connection.on_missed(subjects.bucket_updates(subjects.NODES_BUCKET), self._directory.reload)
        self._jobs.start()
        self._loop = mesh.loops.start(copies.keep(), "copies")

    async def stop(self) -> None:
        """Breaks off what runs: it is taken up at the next start."""
        self._loop.cancel()
        await self._endpoints.stop()
        await self._jobs.stop()
        await self._ranges.stop()
        await self._held.stop()

    def load(self) -> Load:
        """How many jobs are not done, and what room there is."""
        return Load(slots=0, busy=self._jobs.busy, store=StoreOffer(free_bytes=self._copies.room_bytes))

    def _live(self) -> dict[str, str]:
        stores = {one.instance: one.host for one in self._directory.of(SERVICE)}
        return {**stores, self._identity.instance: self._identity.host}

    async def _work(self, job: Job) -> None:
        name = job.request.name or ""
        try:
            if job.request.action == "add":
                await add(job, self._known, self._holdings, self._mesh.clock)
            elif name.startswith(HUB_PREFIX):
                await self._hub.pull(job)
            else:
                await self._puller.pull(job)
        finally:
            self._held.look_again()

    def _pull_soon(self, name: str) -> None:
        task = asyncio.create_task(self._pull(name), name=f"a copy of {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _pull(self, name: str) -> None:
        try:
            await self._jobs.add(ManageStore(action="pull", name=name))
        except ChoirError as error:
            log.error("a copy cannot be made", model=name, why=error.message)

    async def _reconnected(self) -> None:
        """The broker may be another one, and know nothing of what is here."""
        await self._directory.reload()
        try:
            await self._holdings.reconcile()
        except ChoirError as error:
            log.warning("the catalogue could not be compared with what is here", why=error.message)
