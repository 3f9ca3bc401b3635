"""The router as a service: wires admission, pending results, sweeper and endpoints together."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from nats.js import JetStreamContext

from schemas import subjects
from schemas.broker import catalog
from schemas.commands import Ask, Cancel, Fetch, Tokenize
from schemas.ensembles.kept import ManageEnsembles
from schemas.ensembles.named import Ensemble
from schemas.message import Message
from schemas.nodes.cordons import ManageCordons
from schemas.nodes.loading import ManageLoaded
from schemas.nodes.model_store import ManageStore
from schemas.nodes.workers import ManageWorkers
from schemas.pipelines.plan import Shard
from schemas.requests.dead_letters import ManageDeadLetters
from schemas.requests.keys import ManageKeys
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.registry.directory import Directory
from services.chassis.registry.ensembles import Ensembles
from services.chassis.registry.lease import Load
from services.chassis.registry.tenants import Tenants
from services.router.admission.controller import AdmissionController
from services.router.admission.equal_requests import EqualRequests
from services.router.admission.planner import NamedEnsembles
from services.router.endpoints.cordons import Cordons
from services.router.endpoints.dead_letters import DeadLetters
from services.router.endpoints.ensembles import EnsemblesEndpoint
from services.router.endpoints.handlers import Handlers
from services.router.endpoints.keys import Keys
from services.router.endpoints.loading import Loading
from services.router.endpoints.overview import Overview
from services.router.endpoints.queues import Queues
from services.router.endpoints.store_relay import StoreRelay
from services.router.endpoints.tokenizing import Tokenizing
from services.router.endpoints.workers import Workers
from services.router.pending_results import MakingRoom, PendingResults
from services.router.placement.service import Placement
from services.router.retention.sweeper import Sweeper
from services.router.settings import RouterSection
from services.router.tenancy.fair_queue import FairQueue
from services.router.tenancy.limits import TenantLimits

SERVICE = "router"
DESCRIPTION = "Takes requests, plans them, and hands back their results"


class Router:
    """Answers clients. It holds no state that another router could not rebuild from the streams.

    `ensembles` are those of its choir.toml, which count as long as the mesh has no place for them.
    """

    def __init__(self, settings: RouterSection, ensembles: Iterable[Ensemble] = ()) -> None:
        self._settings = settings
        self._own_ensembles = tuple(ensembles)

    async def start(self, mesh: ServiceContext) -> None:
        """Answers requests from now on."""
        self._cordons = Cordons(mesh.client, mesh.clock)
        await self._cordons.start()
        self._directory = Directory(mesh.client, self._cordons.marked)
        await self._directory.start()
        self._tenants = Tenants(mesh.client, mesh.clock.now)
        await self._tenants.start()
        routers = partial(self._directory.of, SERVICE)
        self._limits = TenantLimits(self._tenants, mesh.identity.instance, routers)
        self._fair_queue = FairQueue(mesh, self._tenants, self._limits, self._directory, routers)
        self._fair_queue.start()
        pending = PendingResults(mesh.storage, self._fair_queue.on_result)
        await pending.start()
        self._sweeper = Sweeper(mesh, self._settings.sweep_interval_s)
        await self._sweeper.start()
        self._placement = Placement(mesh, self._directory, self._settings)
        await self._placement.start()
        self._workers = Workers(mesh.client, self._directory, mesh.events)
        await self._workers.start()
        self._keys = Keys(mesh.client)
        await self._keys.start()
        self.ensembles = Ensembles(mesh.client, self._own_ensembles)
        await self.ensembles.start()
        mesh.loops.start(self.ensembles.keep_looking(), "ensembles")
        mesh.connection.on_reconnect(self._resume)
        for bucket, reload in (
            (subjects.NODES_BUCKET, self._directory.reload),
            (subjects.PIPELINES_BUCKET, self._placement.resume),
            (subjects.WORKERS_BUCKET, self._workers.resume),
            (subjects.KEYS_BUCKET, self._keys.resume),
            (subjects.CORDONS_BUCKET, self._cordons.resume),
            (subjects.TENANTS_BUCKET, self._tenants.resume),
            (subjects.ENSEMBLES_BUCKET, self.ensembles.resume),
        ):
            mesh.connection.on_missed(subjects.bucket_updates(bucket), reload)
        admission = AdmissionController(
            mesh,
            self._directory,
            pending,
            self._placement,
            self._workers,
            self._limits,
            self._fair_queue,
            self._settings.default_strategy,
        )
        equal = EqualRequests(mesh, pending, self._directory.serving, self._settings.cache_keep_s)
        ensembles = NamedEnsembles(self.ensembles.find)
        making_room = MakingRoom(least_wait_s=self._settings.undisturbed_s)
        handlers = Handlers(mesh, admission, pending, ensembles, equal, self._limits, making_room)
        js = JetStreamContext(mesh.client, timeout=2.0)
        self._limits.take_up(await _queued(js), catalog.HOUR_S)
        overview = Overview(
            self._directory,
            self._placement,
            self.ensembles,
            js,
            self._tenants,
            self._limits,
            self._cordons,
            Queues(mesh.client, lambda: self._fair_queue.may_hold),
        )
        self._endpoints = Endpoints(
            mesh.client,
            mesh.identity,
            DESCRIPTION,
            self._settings.max_waiting,
            most=self._limits.most_open,
            on_full=making_room.on_refused,
            let_in=self._tenants.check,
            events=mesh.events,
            tracing=mesh.tracing,
            now=mesh.clock.now,
        )
        await self._endpoints.start()
        await self._endpoints.add(subjects.doors(subjects.ASK), Ask, handlers.ask)
        await self._endpoints.add(subjects.doors(subjects.STREAM_ASK), Ask, handlers.ask, streams=True)
        await self._endpoints.add(subjects.doors(subjects.SUBMIT), Ask, handlers.submit)
        await self._endpoints.add(subjects.doors(subjects.FETCH), Fetch, handlers.fetch)
        await self._endpoints.add(subjects.doors(subjects.STREAM_FETCH), Fetch, handlers.fetch, streams=True)
        await self._endpoints.add(subjects.doors(subjects.CANCEL), Cancel, handlers.cancel, quick=True)
        await self._endpoints.add(subjects.doors(subjects.NODES), Message, overview.nodes, quick=True)
        await self._endpoints.add(subjects.doors(subjects.MODELS), Message, overview.models, quick=True)
        await self._endpoints.add(subjects.doors(subjects.STATUS), Message, overview.status, quick=True)
        await self._endpoints.add(subjects.doors(subjects.SHARD), Shard, self._placement.shard)
        tokenizing = Tokenizing(mesh.client, self._directory)
        await self._endpoints.add(subjects.doors(subjects.TOKENIZE), Tokenize, tokenizing.tokenize)
        await self._endpoints.add(
            subjects.doors(subjects.WORKER), ManageWorkers, self._workers.manage, quick=True
        )
        await self._endpoints.add(subjects.doors(subjects.KEYS), ManageKeys, self._keys.manage, quick=True)
        await self._endpoints.add(
            subjects.doors(subjects.CORDON), ManageCordons, self._manage_cordons, quick=True
        )
        await self._endpoints.add(
            subjects.doors(subjects.ENSEMBLES),
            ManageEnsembles,
            EnsemblesEndpoint(self.ensembles).manage,
            quick=True,
        )
        loading = Loading(mesh.client, self._directory)
        await self._endpoints.add(subjects.doors(subjects.LOAD), ManageLoaded, loading.manage)
        relay = StoreRelay(mesh.client, lambda: self._directory.nodes)
        await self._endpoints.add(subjects.keyed_doors(subjects.STORE), ManageStore, relay.relay)
        dead = DeadLetters(mesh, admission)
        await self._endpoints.add(subjects.doors(subjects.DEAD_LETTERS), ManageDeadLetters, dead.manage)

    async def _manage_cordons(self, request: ManageCordons, caller: Caller) -> None:
        await self._cordons.manage(request, self._directory.nodes, caller)

    async def _resume(self) -> None:
        self._sweeper.resume()
        await self._placement.resume()
        await self._workers.resume()
        await self._keys.resume()
        await self._cordons.resume()
        await self._tenants.resume()
        await self.ensembles.resume()

    async def stop(self) -> None:
        """Takes nothing more; clients that still wait are told to ask again under the same id."""
        await self._endpoints.stop()
        await self._placement.stop()
        await self._fair_queue.stop()
        await self._sweeper.stop()

    def load(self) -> Load:
        """A router has no slots; it knows how much is queued, and what its tenants have in work."""
        self._limits.forget_overdue()
        return Load(queued=self._sweeper.queued, tenants=self._limits.loads)


async def _queued(js: JetStreamContext) -> tuple[str, ...]:
    """The subjects of all commands that wait or are in work."""
    info = await js.stream_info(subjects.COMMANDS_STREAM, subjects_filter=subjects.ALL_COMMANDS)
    return tuple(info.state.subjects or ())
