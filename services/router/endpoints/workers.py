"""The endpoint `choir.worker`: users register external workers, and agents take them up from the bucket.

A change is made only if nobody else has changed the same entry since it was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import InvalidRequest, Overloaded, UnknownWorker
from schemas.events import WorkerChanged
from schemas.nodes.workers import ManageWorkers, Worker, WorkersReply, WorkerStatus
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, WrongRevision, messages
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.directory import Directory
from services.chassis.registry.lease_size import cut_error
from services.chassis.telemetry.events import EventLog

MOST_WORKERS = 1_000
"""Their bucket holds as many even of the largest, and agents look at all of them every second."""
log = get_logger("router.workers")
FULL = "there is no room for more workers: remove one that is not needed (`choir worker remove ID`)"


class Unreadable:
    """In the place of an entry that nobody can read: it is removed or replaced, and nothing else."""


class Workers:
    """`choir.worker`: list, add, cordon, uncordon, remove."""

    def __init__(self, client: Client, directory: Directory, events: EventLog) -> None:
        self._directory = directory
        self._events = events
        self._registered: dict[str, Worker] = {}
        self._bucket = Bucket(
            client, subjects.WORKERS_BUCKET, messages(Worker), self._on_put, self._on_delete, full=FULL
        )

    async def start(self) -> None:
        """Returns when it is known which workers there are."""
        await self._bucket.watch()

    async def resume(self) -> None:
        """After a reconnection."""
        await self._bucket.reload()

    @property
    def registered(self) -> tuple[Worker, ...]:
        """All workers, in the order of their ids."""
        return tuple(sorted(self._registered.values(), key=lambda worker: worker.id))

    def _on_put(self, _key: str, worker: Worker) -> None:
        self._registered[worker.id] = worker

    def _on_delete(self, key: str) -> None:
        self._registered.pop(subjects.worker_of_key(key), None)

    async def manage(self, request: ManageWorkers, caller: Caller) -> None:
        """Does what is asked, and sends the workers that it concerns: all of them for a list."""
        if request.worker is not None:
            concerned = [await self._add(request.worker, request, caller.tenant)]
        elif request.id is not None:
            concerned = await self._change(request.id, request.action, caller.tenant)
        else:
            concerned = list(self.registered)
        held = self._held()
        statuses = tuple(
            held.get(worker.id, WorkerStatus(worker=worker)).model_copy(update={"worker": worker})
            for worker in concerned
        )
        await caller.send_what_fits(worker_lists(statuses))

    def _held(self) -> dict[str, WorkerStatus]:
        """The state of workers that some agent uses, from the leases."""
        return {
            model.worker.id: WorkerStatus(
                worker=self._registered[model.worker.id],
                held_by=lease.instance,
                slots=model.slots,
                busy=model.busy,
                tokens_per_s=model.tokens_per_s,
                state=model.worker,
                problem=model.problem,
            )
            for usable in (False, True)  # who can use it is heard before who cannot
            for lease in self._directory.nodes
            for model in lease.models
            if model.worker is not None and model.worker.id in self._registered
            if (model.problem is None) == usable
        }

    async def _add(self, worker: Worker, request: ManageWorkers, tenant: str) -> Worker:
        known, revision = await self._read(worker.id)
        if known is not None and not request.replace:
            where = "that cannot be read" if isinstance(known, Unreadable) else f"at {known.url}"
            raise InvalidRequest(
                f"worker.id: there is a worker {worker.id!r} {where}; remove it first, "
                "take another id, or ask for it to be replaced",
                field="worker.id",
            )
        if known is None and len(self._registered) >= MOST_WORKERS:
            raise InvalidRequest(
                f"worker.id: {len(self._registered)} workers are registered, and there may be no more: "
                "remove one that is not needed (`choir worker remove ID`)",
                field="worker.id",
            )
        same = isinstance(known, Worker) and (known.name, known.url) == (worker.name, worker.url)
        if not request.share and not same:
            self._require_name(worker)
        with _refused(worker.id):
            await self._bucket.update(subjects.worker_key(worker.id), worker, revision)
        was = known.url if isinstance(known, Worker) and known.url != worker.url else None
        self._emit_changed("add", worker.id, worker, tenant, instead_of=was, shares=request.share)
        return worker

    def _emit_changed(
        self, action: str, worker_id: str, worker: Worker | Unreadable, tenant: str, **more: Any
    ) -> None:
        """Nobody takes the prompts of a model unseen: who did what is in the log and in the database."""
        known = (worker.name, worker.url) if isinstance(worker, Worker) else (None, None)
        log.warning(
            "worker changed", action=action, worker=worker_id, model=known[0], url=known[1], by=tenant
        )
        self._events.publish(
            WorkerChanged,
            action=action, worker=worker_id, model=known[0], url=known[1], tenant=tenant, **more,
        )  # fmt: skip

    def _require_name(self, worker: Worker) -> None:
        """Raises InvalidRequest if agents serve a model of this name by themselves."""
        own = [
            lease.instance
            for lease, model in self._directory.serving().get(worker.name, ())
            if not model.worker
        ]
        if own:
            raise InvalidRequest(
                f"worker.served_as: {worker.name} is a model that {own[0]} serves by itself, and this worker "
                "would get a part of its prompts: serve it under another name (`--as`), or say that it is "
                "meant (`--share`)",
                field="worker.served_as",
            )

    async def _change(self, worker_id: str, action: str, tenant: str) -> list[Worker]:
        known, revision = await self._read(worker_id)
        if known is None:
            names = tuple(sorted(self._registered))
            raise UnknownWorker(
                f"id: there is no worker {worker_id!r}; known: {', '.join(names) or 'none'}",
                field="id",
                known=names,
            )
        key = subjects.worker_key(worker_id)
        with _refused(worker_id):
            if action == "remove":
                await self._bucket.delete(key, revision)
                self._emit_changed(action, worker_id, known, tenant)
                return [known] if isinstance(known, Worker) else []
            if isinstance(known, Unreadable):
                raise InvalidRequest(
                    f"id: the entry of worker {worker_id!r} cannot be read; remove it, and add it again",
                    field="id",
                )
            changed = known.model_copy(update={"cordoned": action == "cordon"})
            await self._bucket.update(key, changed, revision)
            self._emit_changed(action, worker_id, changed, tenant)
            return [changed]

    async def _read(self, worker_id: str) -> tuple[Worker | Unreadable | None, int]:
        """The entry as it is stored, and the revision that a change has to name."""
        key = subjects.worker_key(worker_id)
        try:
            entry = await self._bucket.get(key)
        except ValidationError:
            return Unreadable(), await self._bucket.revision(key)
        return entry.value, entry.revision


def worker_lists(statuses: tuple[WorkerStatus, ...]) -> Iterator[WorkersReply]:
    """The list of all workers, and ever shorter ones."""
    yield WorkersReply(workers=statuses)
    plain = tuple(_without_details(status) for status in statuses)
    yield WorkersReply(workers=plain)
    while plain:
        plain = plain[: len(plain) // 2]
        yield WorkersReply(workers=plain, left_out=len(statuses) - len(plain))


def _without_details(status: WorkerStatus) -> WorkerStatus:
    state = status.state
    if state is not None:
        state = state.model_copy(update={"last_error": cut_error(state.last_error)})
    return status.model_copy(update={"state": state, "problem": cut_error(status.problem)})


@contextmanager
def _refused(worker_id: str) -> Iterator[None]:
    """Says to the client why an entry cannot be changed."""
    try:
        yield
    except WrongRevision as error:
        raise InvalidRequest(
            f"id: worker {worker_id!r} was changed by somebody else at the same time; try again",
            field="id",
        ) from error
    except Overloaded as error:
        raise Overloaded(error.message, field="id") from error
