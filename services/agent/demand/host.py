"""The models that one agent loads on demand: it asks the store of its host what there is, and decides again
whenever something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

import nats.errors

from schemas import subjects
from schemas.errors import ChoirError, ErrorBody, NotReady, UnknownModel, error_from_body
from schemas.nodes.lease import LoadingOffer, ServedModel
from schemas.nodes.loading import LoadedReply, ManageLoaded
from schemas.nodes.model_store import HeldModel, HeldModels, ListHeld
from schemas.replies import ErrorReply
from services.agent.counting import Counting
from services.agent.demand.loadable import loadable_of
from services.agent.demand.model import DemandModel
from services.agent.demand.policy import ModelUse, steps_for
from services.agent.serving import Serving
from services.agent.settings import OnDemandSection
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller
from services.chassis.process.cancelling import ended
from services.chassis.process.limits import memory_total_bytes
from services.chassis.process.supervise import log_failure
from services.engine.model.devices import Devices, gpu_devices, total_bytes

LOOK_INTERVAL_S = 2.0
FIRST_LOOK_S = 0.3
STORE_PATIENCE_S = 3.0
TOLD_AFTER_S = 15.0
"""A store that has said nothing for so long is told in the lease."""
SHARE_OF_MEMORY = 0.5
SHARE_OF_GPUS = 0.9
"""The rest is for what steps compute in, and for other programs."""
KNOCK_INTERVAL_S = 1.0
KNOCK_S = 0.1
"""Without room a model's queue is looked into now and then: whoever has room has taken what is there."""

log = get_logger("agent.demand")


class ModelsOnDemand:
    """All of them. `problem` says why there are none that could be there."""

    def __init__(
        self,
        mesh: ServiceContext,
        section: OnDemandSection,
        threads: int | None,
        counting: Counting,
        devices: Devices = gpu_devices,
    ) -> None:
        self._mesh = mesh
        self._section = section
        self._threads = threads
        self._counting = counting
        self._devices = devices
        self._budget_bytes = section.memory_bytes or _usual_budget(section.gpu_layers, devices)
        self._models: dict[str, DemandModel] = {}
        self._dropped: list[DemandModel] = []
        self._steps: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._heard_s = self._news_s = time.monotonic()
        self._silence: ChoirError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._knocked_s = 0.0

    async def start(self) -> None:
        """Looks what there is, and serves it from now on."""
        self._mesh.connection.on_disconnect(self._mark_unfresh)
        self._tasks = [
            self._mesh.loops.start(self._follow(), "what the store holds"),
            self._mesh.loops.start(self._decide(), "models on demand"),
        ]

    async def stop(self) -> None:
        """Finishes what is in work, and frees the models."""
        await ended(self._tasks)
        await asyncio.gather(*self._steps, return_exceptions=True)
        await asyncio.gather(*(model.stop() for model in self._models.values()))

    @property
    def servings(self) -> tuple[Serving, ...]:
        """Each with its work loop, for those who watch over them."""
        return tuple(model.serving for model in self._models.values())

    @property
    def offer(self) -> LoadingOffer | None:
        """What the lease says of the room for models; None where nobody has said which store is meant."""
        section = self._section
        if section.store is None:
            return None
        return LoadingOffer(store=section.store, budget_bytes=self._budget_bytes, models=section.models)

    @property
    def problem(self) -> ErrorBody | None:
        """Why nothing is known of what the store holds."""
        if self._silence is None or time.monotonic() < self._heard_s + TOLD_AFTER_S:
            return None
        return self._silence.body()

    def summaries(self) -> tuple[ServedModel, ...]:
        """What the lease says of them."""
        return tuple(model.summary() for model in self._models.values())

    def _mark_unfresh(self) -> None:
        for serving in self.servings:
            if serving.loop is not None:
                serving.loop.mark_unfresh()

    async def order(self, request: ManageLoaded, caller: Caller) -> None:
        """The endpoint `choir.signal.load.<instance>`: loads or unloads a model, and says how it is then.

        Raises UnknownModel, and why it cannot be loaded, with the memory that it takes and what there is.
        """
        model = self._models.get(request.model)
        if model is None:
            raise UnknownModel(
                f"model: {request.model} is not on demand here; known: {', '.join(self._models) or 'none'}",
                field="model",
                known=tuple(self._models),
            )
        if request.action == "load":
            await model.load_now(request.keep_alive_s)
        else:
            await model.unload_now()
        await self._mesh.renew_lease()
        told = model.loaded_at(self._mesh.identity.instance)
        await caller.send(LoadedReply(model=model.name, agents=(told,)))

    # --- what there is --------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except ChoirError as error:
                if self._silence is None:
                    log.warning("the store does not say what it holds", why=error.message)
                self._silence = error
            else:
                self._heard_s, self._silence = time.monotonic(), None
            settled = self._silence is None and all(model.started for model in self._models.values())
            hurries = not settled and time.monotonic() < self._news_s + TOLD_AFTER_S
            await asyncio.sleep(FIRST_LOOK_S if hurries else LOOK_INTERVAL_S)

    async def _look(self) -> None:
        held = {model.name: model for model in await self._held() if self._is_meant(model.name)}
        for name, model in list(self._models.items()):
            if (there := held.get(name)) is None or there != model.held:
                await self._drop(model)
        for name, there in held.items():
            if name not in self._models:
                await self._add(there)
        for model in self._models.values():
            if not model.started:
                await self._begin(model)

    def _is_meant(self, name: str) -> bool:
        return not self._section.models or name in self._section.models

    async def _held(self) -> tuple[HeldModel, ...]:
        store = self._section.store
        if store is None:
            raise NotReady("on_demand.store: nobody has said which store is this host's", field="store")
        request = ListHeld().to_bytes()
        try:
            reply = await self._mesh.client.request(
                subjects.held_models(store), request, timeout=STORE_PATIENCE_S
            )
        except (nats.errors.Error, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise NotReady(f"the store {store} of this host does not answer: {why}", field="store") from error
        if reply.headers and reply.headers.get(subjects.KIND_HEADER):
            raise error_from_body(ErrorReply.read(reply.data).error)
        return HeldModels.read(reply.data).models

    async def _add(self, held: HeldModel) -> None:
        loadable = await asyncio.to_thread(loadable_of, held, self._section, self._budget_bytes)
        model = DemandModel(
            self._mesh,
            held,
            loadable,
            self._budget_bytes,
            self._section,
            self._threads,
            self._news.set,
            self._devices,
        )
        self._models[held.name] = model
        self._news_s = time.monotonic()
        log.info(
            "can load", model=held.name, memory_bytes=loadable.need_bytes, budget_bytes=self._budget_bytes
        )
        self._mesh.changed()

    async def _begin(self, model: DemandModel) -> None:
        """Takes its work as soon as the broker lets this agent, which it does when it has seen the lease."""
        try:
            if not await self._mesh.connection.may_hear(self._mesh.client, subjects.count_tokens(model.name)):
                return
            await model.start()
            await self._counting.add(model.name, model)
        except (nats.errors.Error, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise NotReady(f"the broker does not answer: {why}") from error
        self._mesh.changed()
        self._news.set()

    async def _drop(self, model: DemandModel) -> None:
        """The store holds it no more, or another file under its name."""
        log.info("is there no more", model=model.name)
        del self._models[model.name]
        self._dropped.append(model)
        if model.started:
            self._counting.remove(model.name, model)
        self._mesh.changed()
        await model.stop()
        self._news.set()

    # --- who is loaded --------------------------------------------------------------------

    async def _decide(self) -> None:
        """Does what the policy says whenever something has changed, and when time alone changes it."""
        pause_s: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            self._news.clear()
            pause_s = await self._take_steps()

    async def _take_steps(self) -> float | None:
        """One look. In how many seconds the next one is due without news."""
        now_s = time.monotonic()
        models = self._models
        for model in models.values():
            model.look()
        self._dropped = [model for model in self._dropped if model.use.takes_room]
        steps = steps_for(self._uses(), self._budget_bytes, self._section.wait_limit_s, now_s)
        for name in steps.leave:
            models[name].leave()
        for name in steps.unload:
            models[name].state = "unloading"
            self._run(models[name], load=False)
        for name in steps.load:
            models[name].state = "loading"
            self._run(models[name], load=True)
        knock_in_s = await self._listen(now_s)
        look_in_s = None if steps.look_at_s is None else max(0.0, steps.look_at_s - now_s)
        return min((one for one in (knock_in_s, look_in_s) if one is not None), default=None)

    def _uses(self) -> Iterator[ModelUse]:
        """Those that can be asked, and those that were dropped, which take memory until they are freed."""
        for model in self._models.values():
            if model.started and model.can_be_asked:
                yield model.use
        for model in self._dropped:
            yield replace(model.use, state="unloading")

    def _run(self, model: DemandModel, *, load: bool) -> None:
        async def step() -> None:
            await (model.load() if load else model.unload())
            self._mesh.changed()
            self._news.set()

        task = asyncio.create_task(step(), name=f"{'load' if load else 'unload'} {model.name}")
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        task.add_done_callback(log_failure)

    async def _listen(self, now_s: float) -> float | None:
        """Has those models take tasks that could be loaded now, and the others only for a moment now and
        then."""
        crowded = [model for model in self._models.values() if self._is_crowded_out(model)]
        for model in tuple(self._models.values()):  # others come and go while the broker is asked
            if model.started and model not in crowded and not model.leaving:
                await model.listen()
        if not crowded:
            return None
        since_s = now_s - self._knocked_s
        if since_s >= KNOCK_INTERVAL_S:
            self._knocked_s, since_s = now_s, 0.0
            for model in crowded:
                await model.listen()
        elif since_s >= KNOCK_S:
            for model in crowded:
                model.pause()
            return KNOCK_INTERVAL_S - since_s
        return KNOCK_S - since_s

    def _is_crowded_out(self, model: DemandModel) -> bool:
        """Whether it is not loaded, nobody waits for it, and it would have to wait for busy ones."""
        if model.state != "unloaded" or model.users or not (model.started and model.can_be_asked):
            return False
        busy = (*(other for other in self._models.values() if other.users), *self._dropped)
        return model.need_bytes > self._budget_bytes - sum(other.need_bytes for other in busy)


def _usual_budget(gpu_layers: int, devices: Devices) -> int:
    """Half of the host's memory; where layers go to GPUs most of theirs, and the host's besides unless all
    layers go there."""
    host_bytes = int(memory_total_bytes() * SHARE_OF_MEMORY)
    gpu_bytes = int(total_bytes(devices()) * SHARE_OF_GPUS) if gpu_layers else 0
    return gpu_bytes if gpu_layers < 0 and gpu_bytes else host_bytes + gpu_bytes
