"""The aggregator as a service: a work loop on the gather queues, and the endpoints of its scores."""

from __future__ import annotations

from functools import partial

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Feedback, Gather, ReadScores
from services.aggregator.ensemble import EnsembleHandler
from services.aggregator.receipts.giving import Receipts
from services.aggregator.receipts.signing import Signer
from services.aggregator.scores.endpoint import ScoresHandler
from services.aggregator.scores.feedback import FeedbackHandler, emit_counted
from services.aggregator.scores.ledger import FeedbackLedger
from services.aggregator.scores.store import Scores
from services.aggregator.settings import AggregatorSection
from services.aggregator.topics import TopicClassifier, shipped
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Endpoints
from services.chassis.registry.lease import Load
from services.chassis.work.loop import WorkLoop

DESCRIPTION = "Asks the members of an ensemble and decides from their answers"


class Aggregator:
    """Decides ensembles. What it knows is in the streams: another one takes over where it died."""

    def __init__(
        self,
        settings: AggregatorSection,
        topics: TopicClassifier | None = None,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self._settings = settings
        self._topics = topics or shipped()

    async def start(self, mesh: ServiceContext) -> None:
        """Pulls and decides from now on."""
        self._scores = Scores(mesh.client, mesh.loops)
        await self._scores.start()
        self._ledger = FeedbackLedger(mesh.client, self._scores, partial(emit_counted, mesh), mesh.loops)
        await self._ledger.start()
        receipts = Receipts(mesh.identity.instance, self._signer)
        self._handler = EnsembleHandler(
            mesh, self._scores, self._topics, self._settings.poll_interval_s, receipts
        )
        await mesh.client.subscribe(subjects.ALL_CANCELS, cb=self._on_cancel)
        self._loop = WorkLoop(
            mesh,
            Gather,
            subjects.COMMANDS_STREAM,
            [subjects.gather_consumer(priority) for priority in subjects.PRIORITIES],
            self._settings.slots,
            self._handler,
        )
        mesh.connection.on_reconnect(self._handler.in_work.look_for_cancelled)
        mesh.connection.on_missed(subjects.ALL_CANCELS, self._handler.in_work.look_for_cancelled)
        mesh.connection.on_missed(subjects.bucket_updates(subjects.SCORES_BUCKET), self._scores.reload)
        mesh.connection.on_disconnect(self._loop.mark_unfresh)
        mesh.connection.on_reconnect(self._resume)
        self._endpoints = Endpoints(
            mesh.client, mesh.identity, DESCRIPTION, events=mesh.events, tracing=mesh.tracing
        )
        await self._endpoints.start()
        await self._endpoints.add(
            subjects.doors(subjects.FEEDBACK), Feedback, FeedbackHandler(mesh, self._ledger).handle
        )
        await self._endpoints.add(
            subjects.doors(subjects.SCORES), ReadScores, ScoresHandler(mesh, self._scores).handle
        )
        await self._loop.start()

    async def _on_cancel(self, msg: Msg) -> None:
        self._handler.in_work.cancel(subjects.request_of(msg.subject))

    async def _resume(self) -> None:
        await self._loop.resume()
        await self._scores.reload()

    async def stop(self) -> None:
        """Finishes what is in work."""
        await self._endpoints.stop()
        await self._loop.stop()
        await self._ledger.stop()
        await self._scores.stop()

    def load(self) -> Load:
        """How many ensembles are being gathered, and why nothing can be learnt if that is so."""
        return Load(slots=self._loop.slots, busy=self._loop.busy, problem=self._scores.problem)
