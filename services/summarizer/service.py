"""The summarizer as a service: a work loop on the queues of chains."""

from __future__ import annotations

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Summarize
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Endpoints
from services.chassis.registry.directory import Directory
from services.chassis.registry.lease import Load
from services.chassis.work.loop import WorkLoop
from services.summarizer.settings import SummarizerSection
from services.summarizer.worker import ChainWorker

DESCRIPTION = "Takes an answer on to models that summarise it"


class Summarizer:
    """Walks chains of peers. What it knows is in the streams: another one takes over where it died."""

    def __init__(self, settings: SummarizerSection) -> None:
        self._settings = settings

    async def start(self, mesh: ServiceContext) -> None:
        """Pulls and works from now on."""
        directory = Directory(mesh.client)
        await directory.start()
        self._worker = ChainWorker(mesh, directory, self._settings)
        await mesh.client.subscribe(subjects.ALL_CANCELS, cb=self._on_cancel)
        self._loop = WorkLoop(
            mesh,
            Summarize,
            subjects.COMMANDS_STREAM,
            [subjects.summarize_consumer(priority) for priority in subjects.PRIORITIES],
            self._settings.slots,
            self._worker,
        )
        mesh.connection.on_reconnect(self._worker.in_work.look_for_cancelled)
        mesh.connection.on_missed(subjects.ALL_CANCELS, self._worker.in_work.look_for_cancelled)
        mesh.connection.on_missed(subjects.bucket_updates(subjects.NODES_BUCKET), directory.reload)
        mesh.connection.on_disconnect(self._loop.mark_unfresh)
        mesh.connection.on_reconnect(self._loop.resume)
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        await self._endpoints.start()
        await self._loop.start()

    async def _on_cancel(self, msg: Msg) -> None:
        self._worker.in_work.cancel(subjects.request_of(msg.subject))

    async def stop(self) -> None:
        """Finishes what is in work."""
        await self._endpoints.stop()
        await self._loop.stop()

    def load(self) -> Load:
        """How many chains are on their way."""
        return Load(slots=self._loop.slots, busy=self._loop.busy)
