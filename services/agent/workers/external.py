"""One external worker in use: its server, its queue and its health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from schemas import subjects
from schemas.commands import ChatMessage, Embed, Generate
from schemas.errors import ChoirError, ErrorBody, ModelUnusable, NotReady, WorkerFailed
from schemas.nodes.lease import ServedModel
from schemas.nodes.workers import Worker, WorkerState
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.backends import Generated, OnPiece, Prompt
from services.agent.backends.servers.bounds import bounded_error, bounded_number, bounded_text
from services.agent.backends.servers.remote import RemoteBackend
from services.agent.keys import with_key
from services.agent.networks import networks_of
from services.agent.settings import ModelSection, ServerSection, WorkersSection
from services.agent.workers.circuit import Circuit
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.work.loop import WorkLoop
from services.tasks.generate import BackendWorker
from services.tasks.token_stream import Piece

TRIAL = (ChatMessage(role="user", content="Say yes."),)
TRIAL_SAMPLING = Sampling(max_tokens=1)
SHORTEST_PAUSE_S = 0.05
ERROR_SHOWN_FOR_S = 300.0
"""After so long, an error of a worker that works is not told any more."""

log = get_logger("agent.workers")


def connect(worker: Worker, settings: WorkersSection) -> RemoteBackend:
    """The backend of a worker; nothing is asked yet. ModelUnusable if it may not have its key.

    Blocks for a second or so when it is first called: a client library is imported, all of it, so that this
    takes no part in how long a server takes to answer. Agents without such workers never import one.
    """
    model = ModelSection(
        name=worker.name,
        slots=worker.slots,
        context_tokens=worker.context_tokens,
        server=ServerSection(
            type=worker.type,
            url=worker.url,
            model=worker.model,
            key_variable=worker.key_variable,
            connect_limit_s=settings.connect_limit_s,
            stall_limit_s=settings.stall_limit_s,
        ),
    )
    model = with_key(model, settings.keys)
    if worker.type == "ollama":
        from services.agent.backends.servers.ollama import Ollama

        return Ollama(model, networks_of(settings))
    from services.agent.backends.servers.openai import OpenAI

    return OpenAI(model, networks_of(settings))


def unusable(worker: Worker, error: ChoirError) -> ServedModel:
    """What the lease says of a worker that this agent may not use, while nobody else does either."""
    return ServedModel(
        name=worker.name,
        backend=worker.type,
        slots=0,
        worker=WorkerState(
            id=worker.id,
            type=worker.type,
            url=worker.url,
            circuit="open",
            weight=worker.weight,
            cordoned=worker.cordoned,
            last_error=error.body(),
        ),
        problem=ModelUnusable(f"worker {worker.id}: {error.message}", field=error.field).body(),
    )


async def look(backend: RemoteBackend, limit_s: float) -> None:
    """Raises WorkerFailed or ModelUnusable unless the server lists the model in time."""
    try:
        async with asyncio.timeout(limit_s):
            await backend.check()
    except TimeoutError as error:
        raise WorkerFailed(f"it has not said within {limit_s:g} s which models it has") from error


async def try_out(backend: RemoteBackend, limit_s: float) -> Generated:
    """One token, for real. Raises WorkerFailed, or whatever else the backend does."""
    try:
        async with asyncio.timeout(limit_s):
            return await backend.generate(TRIAL, TRIAL_SAMPLING, None)
    except TimeoutError as error:
        raise WorkerFailed(f"it has not generated one token within {limit_s:g} s") from error


class ExternalWorker:
    """Serves one worker for as long as this agent has the claim on it."""

    def __init__(
        self, mesh: ServiceContext, worker: Worker, backend: RemoteBackend, settings: WorkersSection
    ) -> None:
        self.worker = worker
        self.backend = backend
        self._settings = settings
        self._loops = mesh.loops
        self._circuit = Circuit(settings)
        self._generator = BackendWorker(mesh, self, worker.id, lambda: backend.info.capabilities)
        self._loop = WorkLoop(
            mesh,
            Generate,
            subjects.COMMANDS_STREAM,
            [subjects.generate_consumer(priority, worker.name) for priority in subjects.PRIORITIES],
            worker.slots,
            self._generator,
            worker.weight,
            heeds_cordon=True,
        )
        self._back_at_s = 0.0
        self._doubtful = False
        self._look_now = asyncio.Event()
        self._last_error_at_s: float | None = None
        self._checked_at_s: float | None = None
        self._task: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Looks at the server, and gives it work as soon as it answers."""
        self._loop.pause()
        await self._loop.start()
        self._task = self._loops.start(self._keep(), f"worker {self.worker.id}")

    async def stop(self) -> None:
        """Finishes what is in work, and takes nothing more."""
        if self._task is not None:
            self._task.cancel()
        await self._loop.stop()
        await self.backend.close()

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        self._generator.cancel(request_id)

    async def look_for_cancelled(self) -> None:
        """Cancellations were missed."""
        await self._generator.look_for_cancelled()

    def mark_unfresh(self) -> None:
        """The connection to the broker is lost."""
        self._loop.mark_unfresh()

    async def resume(self) -> None:
        """The connection to the broker is there again."""
        await self._loop.resume()

    async def change(self, worker: Worker) -> None:
        """Takes over what can be changed while it works: cordoned or not, and its weight."""
        self.worker = worker
        self._loop.weight = worker.weight
        await self._admit()

    # --- tasks --------------------------------------------------------------------------

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """One task. What fails here counts against the server, and goes to another one."""
        heard = asyncio.Event()

        async def hear(piece: Piece) -> None:
            heard.set()
            if on_piece is not None:
                await on_piece(piece)

        return await self._watched(self.backend.generate(prompt, sampling, hear, origin), heard)

    async def embed(self, embed: Embed) -> Generated:
        """The same for vectors."""
        return await self._watched(self.backend.embed(embed), asyncio.Event())

    async def _watched(self, work: Awaitable[Generated], heard: asyncio.Event) -> Generated:
        try:
            generated = await work
        except (WorkerFailed, ModelUnusable) as error:
            self._task_failed(error)
            raise WorkerFailed(f"worker {self.worker.id}: {error.message}") from error
        except asyncio.CancelledError:
            if not heard.is_set():  # its own deadline may have ended it, not the client
                self._doubtful = True
                self._look_now.set()
            raise
        self._circuit.task_succeeded()
        return generated

    def _task_failed(self, error: ChoirError) -> None:
        log.warning("worker failed a task", worker=self.worker.id, why=error.message)
        self._last_error_at_s = time.time()
        self._circuit.task_failed(error, time.monotonic())
        self._back_at_s = time.monotonic() + self._settings.stand_back_s
        self._loop.pause()
        self._look_now.set()

    # --- health -------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            self._look_now.clear()
            if self._circuit.state == "closed" or self._circuit.due_in(time.monotonic()) == 0:
                await self._look()
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    def _pause_s(self) -> float:
        """Until the next look, or until it has stood back for long enough."""
        now_s = time.monotonic()
        if self._circuit.state != "closed":
            return max(SHORTEST_PAUSE_S, self._circuit.due_in(now_s))
        if self._back_at_s > now_s:
            return self._back_at_s - now_s
        return self._settings.check_interval_s

    async def _look(self) -> None:
        before = self._circuit.state
        trial = self._doubtful or (before != "closed" and self._circuit.seen)
        if trial:
            self._loop.pause()
        if before != "closed":
            self._circuit.tried()
        try:
            await look(self.backend, self._settings.check_limit_s)
            if trial:
                await try_out(self.backend, self._settings.trial_limit_s)
        except ChoirError as error:
            self._last_error_at_s = time.time()
            self._circuit.look_failed(error, time.monotonic())
        else:
            if trial:  # a doubt that came while it was only looked at stays: the next look tries it out
                self._doubtful = False
            self._circuit.look_succeeded()
        self._checked_at_s = time.time()
        if self._circuit.state != before:
            log.warning("worker", worker=self.worker.id, circuit=self._circuit.state, why=self._why())
        await self._admit()

    async def _admit(self) -> None:
        """Gives work to a worker that is fit for it and stands back no longer, and none to another."""
        fit = self._circuit.state == "closed" and not self.worker.cordoned and not self._doubtful
        if not fit:
            self._loop.pause()
        elif time.monotonic() >= self._back_at_s:
            await self._loop.unpause()

    def _why(self) -> str:
        error = self._circuit.last_error
        return error.message if error is not None and self._circuit.state != "closed" else "it answers"

    # --- what the lease says ------------------------------------------------------------

    @property
    def problem(self) -> ChoirError | None:
        """Why no work is given to it."""
        who = f"worker {self.worker.id}"
        if self.worker.cordoned:
            return NotReady(f"{who} is cordoned: `choir worker uncordon {self.worker.id}` lets it in again")
        if self._circuit.state != "closed":
            why = self._circuit.last_error
            return WorkerFailed(f"{who}: {why.message}" if why is not None else f"{who} is being looked at")
        if self._loop.unanswered:
            return NotReady(
                f"{who}: there is no queue for {self.worker.name}; a host with `choir up` makes it"
            )
        return None

    def summary(self) -> ServedModel:
        """What the lease says of it."""
        problem, last_error = self.problem, self._recent_error()
        info = self.backend.info
        return ServedModel(
            name=self.worker.name,
            backend=self.worker.type,
            slots=self.worker.slots if problem is None else 0,
            busy=self._loop.busy,
            context_tokens=bounded_number(info.context_tokens),
            parameters=bounded_number(info.parameters),
            tokens_per_s=self.backend.tokens_per_s(),
            description=bounded_text(info.description) if info.description else None,
            capabilities=info.capabilities,
            worker=WorkerState(
                id=self.worker.id,
                type=self.worker.type,
                url=self.worker.url,
                circuit=self._circuit.state,
                failures=self._circuit.failures,
                weight=self.worker.weight,
                cordoned=self.worker.cordoned,
                last_error=last_error,
                last_error_at_s=self._last_error_at_s if last_error is not None else None,
                checked_at_s=self._checked_at_s,
            ),
            problem=bounded_error(problem.body()) if problem is not None else None,
        )

    def _recent_error(self) -> ErrorBody | None:
        """The last error, as long as it says something of how the worker does now."""
        error, at_s = self._circuit.last_error, self._last_error_at_s
        old = at_s is not None and time.time() > at_s + ERROR_SHOWN_FOR_S
        if error is None or (old and self._circuit.state == "closed"):
            return None
        return bounded_error(error)
