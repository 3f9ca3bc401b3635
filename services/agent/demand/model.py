"""One model of the store: its queue, those who wait for it or use it, and its engine while it is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import nats.errors

from schemas import subjects
from schemas.commands import ChatMessage, Embed, Generate, Tokenize
from schemas.errors import ChoirError, InternalError, NoRoom, NotReady, WorkerFailed
from schemas.nodes.lease import OnDemand, ServedModel
from schemas.nodes.loading import LoadedAt
from schemas.nodes.model_store import HeldModel
from schemas.replies import TokenCount, Tokenized
from schemas.requests.chat import Tool
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.agent.backends import Backend, Generated, OnPiece, Prompt, backend_opener
from services.agent.demand.loadable import GB, Loadable
from services.agent.demand.policy import FOREVER_S, ModelUse, State
from services.agent.file_hash import FileHash
from services.agent.serving import Serving
from services.agent.settings import BackendName, ModelSection, OnDemandSection
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.process.limits import memory_available_bytes
from services.chassis.work.loop import WorkLoop
from services.engine.model.devices import Devices, free_bytes, gpu_devices
from services.tasks.capabilities import check_capable
from services.tasks.generate import BackendWorker

BACKEND: BackendName = "llama_cpp"
TRIED_AGAIN_AFTER_S = 60.0
"""A model that could not be loaded is tried again then: there may be memory by now."""
ORDER_PATIENCE_S = 20.0
"""So long an operator is kept waiting for what was ordered; it goes on by itself."""
QUESTION_PATIENCE_S = 10.0
"""A question about tokens waits so long for its model to be loaded."""

log = get_logger("agent.demand")


class _Worker(BackendWorker):
    """Takes the tasks of a model: how long it is to stay loaded is said by each of them."""

    def __init__(self, mesh: ServiceContext, model: DemandModel) -> None:
        super().__init__(mesh, model, model_sha256=lambda: model.sha256)
        self._model = model

    async def generate(self, command: Generate, on_piece: OnPiece | None) -> Generated:
        """As any backend, once the model is loaded and known to be able to."""
        model, began_ns = self._model, time.perf_counter_ns()
        waits = model.state != "loaded"
        async with model.used() as backend:
            waited_ns = time.perf_counter_ns() - began_ns if waits else 0
            kept_s = command.keep_alive_s
            model.keep_alive_s = model.usual_keep_alive_s if kept_s is None else kept_s
            check_capable(command, backend.info.capabilities, command.model)
            generated = await super().generate(command, on_piece)
        return replace(generated, load_ns=waited_ns + generated.load_ns)


class DemandModel:
    """A model that can be loaded, unless what its file says is against it. `changed` is called when there is
    something to decide."""

    def __init__(
        self,
        mesh: ServiceContext,
        held: HeldModel,
        loadable: Loadable,
        budget_bytes: int,
        section: OnDemandSection,
        threads: int | None,
        changed: Callable[[], None],
        devices: Devices = gpu_devices,
    ) -> None:
        self.held = held
        self.need_bytes = loadable.need_bytes
        self._gpu_bytes = loadable.gpu_bytes
        self._devices = devices
        self.usual_keep_alive_s = self.keep_alive_s = section.keep_alive_s
        self.state: State = "unloaded"
        self.leaving = False
        self.started = False
        self.users = 0
        self._budget_bytes = budget_bytes
        self._threads = threads
        self._changed = changed
        self._news = asyncio.Condition()
        self._wanted_at_s = self._loaded_at_s = self._used_at_s = self._load_s = 0.0
        self._loads = self._unloads = 0
        self._stopped = False
        self._why: ChoirError | None = None
        self._tried_again_at_s: float | None = None
        model = ModelSection(
            name=held.name,
            path=Path(held.paths[0]),
            slots=section.slots,
            context_tokens=section.context_tokens,
            gpu_layers=section.gpu_layers,
            step_limit_s=section.step_limit_s,
            fixed_threads=section.fixed_threads,
        )
        worker = _Worker(mesh, self)
        consumers = [subjects.generate_consumer(priority, held.name) for priority in subjects.PRIORITIES]
        loop = WorkLoop(mesh, Generate, subjects.COMMANDS_STREAM, consumers, 1, worker, heeds_cordon=True)
        self.serving = Serving(model, loop=loop, worker=worker, info=loadable.info)
        self._loop = loop
        if loadable.fault is not None:
            self._fail(loadable.fault)

    @property
    def name(self) -> str:
        """What it is called in the mesh."""
        return self.held.name

    @property
    def sha256(self) -> str | None:
        """That of its file, which the store has read; of a split one that of all parts, one after another.
        Where the store does not know that, it is there as soon as they were read here."""
        if len(self.held.paths) == 1:
            return self.held.sha256
        return self.held.joined_sha256 or self.serving.model_sha256

    @property
    def use(self) -> ModelUse:
        """What the policy is told of it."""
        return ModelUse(
            name=self.name,
            need_bytes=self.need_bytes,
            state=self.state,
            users=self.users,
            wanted_at_s=self._wanted_at_s,
            loaded_at_s=self._loaded_at_s,
            used_at_s=self._used_at_s,
            keep_alive_s=self.keep_alive_s,
            load_s=self._load_s,
            leaving=self.leaving,
        )

    @property
    def can_be_asked(self) -> bool:
        """Whether nothing is known that keeps it from being loaded."""
        return self.serving.problem is None

    # --- its queue ------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes what is asked of it: while it is not loaded one task, for which it is loaded. If it cannot
        be, every task is told so."""
        await self._loop.start()
        self.started = True

    async def listen(self) -> None:
        """Takes tasks; called again it does nothing. Without a broker it does when there is one again."""
        try:
            await self._loop.unpause()
        except nats.errors.Error as error:
            log.warning("asks for work later", model=self.name, why=str(error) or type(error).__name__)

    def pause(self) -> None:
        """Takes no more for now: what comes is for others."""
        self._loop.pause()

    def leave(self) -> None:
        """Takes nothing more, and goes as soon as nobody uses it."""
        log.info("is to go", model=self.name, users=self.users)
        self.leaving = True
        self._loop.pause()

    async def stop(self) -> None:
        """Finishes what is in work, sends back what only waits, and frees the model."""
        if self.state in ("unloaded", "unloading"):
            await self._refuse(WorkerFailed(f"{self.name} is not loaded here any more"))
        if self.started:
            await self._loop.stop()
        self._stopped = True
        if self.state == "loaded":  # else who loads or unloads it frees it
            await self._close()

    # --- its users ------------------------------------------------------------------------

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Backend]:
        """Waits until it is loaded, and keeps it so. Raises why it cannot be loaded."""
        if not self.users:
            self._wanted_at_s = time.monotonic()
        self.users += 1
        try:
            if self.state != "loaded":
                self._changed()
                async with self._news:
                    await self._news.wait_for(lambda: self._why is not None or self.state == "loaded")
                if self._why is not None:
                    raise self._why
            yield self._loaded
        finally:
            self.users -= 1
            self._used_at_s = time.monotonic()
            if not self.users:
                self._changed()

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        """One text; the model is loaded."""
        return await self._loaded.generate(prompt, sampling, on_piece, origin)

    async def embed(self, embed: Embed) -> Generated:
        """The vectors of texts; the model is loaded."""
        return await self._loaded.embed(embed)

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """How long a prompt is for this model, which is loaded for that. NotReady if it takes too long."""
        async with self._soon() as backend:
            return await backend.count_tokens(messages, tools)

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """Tokens of a text, or the text of tokens; the model is loaded for that. NotReady if it takes too
        long."""
        async with self._soon() as backend:
            return await backend.tokenize(request)

    @asynccontextmanager
    async def _soon(self) -> AsyncIterator[Backend]:
        try:
            async with asyncio.timeout(QUESTION_PATIENCE_S) as limit, self.used() as backend:
                limit.reschedule(None)
                yield backend
        except TimeoutError as error:
            raise NotReady(f"{self.name} was not loaded within {QUESTION_PATIENCE_S:g} s") from error

    @property
    def _loaded(self) -> Backend:
        assert self.serving.backend is not None
        return self.serving.backend

    # --- what an operator wants of it -----------------------------------------------------

    async def load_now(self, keep_alive_s: float | None) -> None:
        """Returns when it is loaded, or still being loaded after a while; it stays for `keep_alive_s`.

        Raises why it cannot be loaded; NoRoom while those that are in work leave it no room.
        """
        if not self.started:
            raise self._without_queue()
        self.keep_alive_s = self.usual_keep_alive_s if keep_alive_s is None else keep_alive_s
        self.leaving = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORDER_PATIENCE_S), self.used():
                return
        if self.state == "unloaded":
            raise NoRoom(
                f"{self.name} takes {self.need_bytes / GB:,.2f} GB when it is loaded, and of the "
                f"{self._budget_bytes / GB:,.2f} GB for models on demand too much is in work: unload another "
                "one, or try it again later",
                field="model",
            )

    async def unload_now(self) -> None:
        """Has it go as soon as nobody uses it. Returns when it has gone, or after a while."""
        before = self._unloads
        if self.state == "unloaded":
            return
        self.leave()
        self._changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORDER_PATIENCE_S), self._news:
                await self._news.wait_for(lambda: self._unloads != before or self.state == "unloaded")

    def loaded_at(self, instance: str) -> LoadedAt:
        """How it is here now."""
        return LoadedAt(
            instance=instance, on_demand=self._state_for_lease(), busy=self.users, leaves=self.leaving
        )

    # --- its engine -----------------------------------------------------------------------

    async def load(self) -> None:
        """Loads it. Why it cannot be is told to those who wait, and in the lease for a while."""
        self.state, began_s = "loading", time.monotonic()
        log.info("loads", model=self.name, memory_bytes=self.need_bytes)
        try:
            await asyncio.to_thread(self._check_memory)
            backend = await backend_opener(BACKEND)(self.serving.model, self._threads)
            await self._hash_parts()
        except ChoirError as error:
            log.error("a model cannot be loaded", model=self.name, why=error.message)
            await self._not_loaded(error)
            return
        except Exception as error:
            log.exception("a model cannot be loaded", model=self.name)
            await self._not_loaded(InternalError(f"{type(error).__name__} while {self.name} was loaded"))
            return
        if self._stopped:
            await backend.close()
            self.state = "unloaded"
            return
        self.serving.backend, self.serving.info = backend, backend.info
        self._loads += 1
        self._loaded_at_s = self._used_at_s = time.monotonic()
        self._load_s = self._loaded_at_s - began_s
        self.state = "loaded"
        log.info("loaded", model=self.name, seconds=round(self._load_s, 2), loads=self._loads)
        async with self._news:
            self._news.notify_all()
        await self._loop.resize(self.serving.model.slots)

    def _check_memory(self) -> None:
        """Blocks. Raises NoRoom, with both numbers, where less is free now than it takes, on GPUs or beside
        them. Where llama.cpp sees none, it says itself why it loads nothing there."""
        gpus = self._devices() if self._gpu_bytes else ()
        on_gpus = self._gpu_bytes if gpus else 0
        if gpus and (left_bytes := free_bytes(gpus)) < on_gpus:
            raise _no_memory(self.name, on_gpus, left_bytes, "on GPUs")
        if (left_bytes := memory_available_bytes()) < self.need_bytes - self._gpu_bytes:
            raise _no_memory(self.name, self.need_bytes - self._gpu_bytes, left_bytes, "in its memory")

    async def _hash_parts(self) -> None:
        """Reads the parts of a split model once, if the store does not know the hash of all together."""
        if len(self.held.paths) == 1 or self.held.joined_sha256 is not None:
            return
        if self.serving.file_hash is None:
            self.serving.file_hash = FileHash(self.serving.model)
            await self.serving.file_hash.read()

    async def _not_loaded(self, error: ChoirError) -> None:
        self.state, self._tried_again_at_s = "unloaded", time.monotonic() + TRIED_AGAIN_AFTER_S
        self.leaving = False
        await self._refuse(error)

    async def unload(self) -> None:
        """Frees it. Who comes meanwhile waits until it is loaded again."""
        log.info("unloads", model=self.name)
        self.state = "unloading"
        await self._loop.resize(1)
        await self._close()
        self.leaving = False
        self._unloads += 1
        if self.users:
            self._wanted_at_s = time.monotonic()
        async with self._news:
            self._news.notify_all()

    async def _close(self) -> None:
        backend, self.serving.backend = self.serving.backend, None
        if backend is not None:
            await backend.close()
        self.state = "unloaded"

    def look(self) -> None:
        """Forgets that it could not be loaded when that is long ago."""
        if self._tried_again_at_s is not None and time.monotonic() >= self._tried_again_at_s:
            self._tried_again_at_s = None
            self._why = self.serving.problem = None

    async def _refuse(self, error: ChoirError) -> None:
        self._fail(error)
        async with self._news:
            self._news.notify_all()

    def _fail(self, error: ChoirError) -> None:
        self._why, self.serving.problem = error, error.body()

    # --- what the lease says of it --------------------------------------------------------

    def summary(self) -> ServedModel:
        """What the lease says of it. Nobody can ask it before it has a queue."""
        told = self.serving.summary(BACKEND)
        problem = told.problem
        if problem is None and (self._loop.unanswered or not self.started):
            problem = self._without_queue().body()
        return told.model_copy(
            update={
                "slots": self.serving.model.slots if problem is None else 0,
                "on_demand": self._state_for_lease(),
                "file": self.held.file,
                "repository": self.held.repository,
                "problem": problem,
            }
        )

    def _without_queue(self) -> NotReady:
        return NotReady(f"there is no queue for {self.name} yet; a host with `choir up` makes it")

    def _state_for_lease(self) -> OnDemand:
        at_s = None
        if self.state == "loaded" and not self.users and self.keep_alive_s != FOREVER_S:
            at_s = time.time() + max(0.0, self._used_at_s + self.keep_alive_s - time.monotonic())
        return OnDemand(
            state=self.state,
            memory_bytes=self.need_bytes,
            budget_bytes=self._budget_bytes,
            loads=self._loads,
            unload_at_s=at_s,
        )


def _no_memory(name: str, need_bytes: int, left_bytes: int, where: str) -> NoRoom:
    return NoRoom(
        f"{name} takes {need_bytes / GB:,.2f} GB {where} when it is loaded, and its host has "
        f"{left_bytes / GB:,.2f} GB free there now: lower memory_bytes of on_demand, so that models are "
        "unloaded before that",
        field="memory_bytes",
    )
