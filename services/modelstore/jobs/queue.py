"""The jobs of a store: a few at a time, written down until they have ended, and taken up after a start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError

from schemas.errors import BrokerUnavailable, Cancelled, ChoirError, InternalError, InvalidRequest, Overloaded
from schemas.nodes.model_store import ManageStore, StoreJob
from services.chassis.identity import Identity, new_id
from services.chassis.logs import get_logger
from services.modelstore.files.known_files import write_whole
from services.modelstore.files.partial_file import no_room
from services.modelstore.jobs.job import Job

AT_ONCE = 2
MOST_JOBS = 1_000
KEPT_AFTERWARDS = 100
BROKER_PATIENCE_S = 600.0
BROKER_PAUSE_S = 1.0

Work = Callable[[Job], Awaitable[None]]

log = get_logger("modelstore.jobs")


class JobQueue:
    """Runs jobs; `work` does one, and raises its typed error."""

    def __init__(self, folder: Path, identity: Identity, work: Work) -> None:
        self._folder = folder
        self._identity = identity
        self._work = work
        self._room = asyncio.Semaphore(AT_ONCE)
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._adding = asyncio.Lock()

    def start(self) -> None:
        """Takes up what was not ended when this host's store ended."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.json")):
            try:
                request = ManageStore.read(path.read_bytes())
            except (OSError, ValidationError) as error:
                log.warning("a job cannot be read", path=str(path), why=str(error))
                path.unlink(missing_ok=True)
                continue
            self._run(path.stem, request)

    async def stop(self) -> None:
        """Breaks off what runs: it is taken up at the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def busy(self) -> int:
        """How many have not ended."""
        return len(self._tasks)

    def told(self, job_id: str | None = None) -> tuple[StoreJob, ...]:
        """The jobs of this store, or the one that is meant, if it is here."""
        jobs = self._jobs.values() if job_id is None else filter(None, [self._jobs.get(job_id)])
        return tuple(job.as_told() for job in jobs)

    async def add(self, request: ManageStore) -> Job:
        """Begins a job; one that asks for the same as one that runs is that one. Raises NoRoom on a full
        disk: nobody would take the job up after a kill."""
        async with self._adding:
            for job in self._jobs.values():
                asked = (job.request.action, job.request.name, job.request.path)
                if not job.over and asked == (request.action, request.name, request.path):
                    return job
            if self.busy >= MOST_JOBS:
                raise Overloaded("the store has too many jobs, try again later", retry_after_s=60.0)
            job_id = f"j-{new_id()[-10:].lower()}"
            try:
                await asyncio.to_thread(write_whole, self._place(job_id), request.to_bytes())
            except OSError as error:
                raise no_room(error, self._folder) from error
            return self._run(job_id, request)

    def cancel(self, job_id: str) -> Job:
        """Ends a job for good. InvalidRequest if there is none."""
        job = self._jobs.get(job_id)
        if job is None:
            raise InvalidRequest(f"job: there is no job {job_id!r} here", field="job")
        if not job.over:
            job.state, job.problem = "failed", Cancelled("somebody has cancelled it").body()
            self._place(job_id).unlink(missing_ok=True)
            self._tasks[job_id].cancel()
        return job

    def _run(self, job_id: str, request: ManageStore) -> Job:
        job = Job(job_id, request, self._identity.instance, self._identity.host)
        over = [one.id for one in self._jobs.values() if one.over]
        for old in over[: max(0, len(over) - KEPT_AFTERWARDS)]:
            del self._jobs[old]
        self._jobs[job_id] = job
        task = asyncio.create_task(self._do(job), name=f"job {job_id}")
        self._tasks[job_id] = task
        task.add_done_callback(lambda _task: self._tasks.pop(job_id, None))
        return job

    async def _do(self, job: Job) -> None:
        async with self._room:
            if job.over:
                return
            try:
                await self._work_on(job)
            except ChoirError as error:
                log.error("a job has failed", job=job.id, model=job.request.name, why=error.message)
                job.state, job.problem = "failed", error.body()
            except Exception as error:
                log.exception("a job has failed", job=job.id)
                problem = InternalError(f"{type(error).__name__} in the model store")
                job.state, job.problem = "failed", problem.body()
            else:
                job.state = "done"
        self._place(job.id).unlink(missing_ok=True)

    async def _work_on(self, job: Job) -> None:
        """A broker that is away for a while ends no job: it goes on from what it has."""
        until_s = time.monotonic() + BROKER_PATIENCE_S
        while True:
            job.begin()
            try:
                await self._work(job)
                return
            except BrokerUnavailable as error:
                if time.monotonic() > until_s:
                    raise
                log.warning("a job waits for the broker", job=job.id, why=error.message)
            await asyncio.sleep(BROKER_PAUSE_S)

    def _place(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"
