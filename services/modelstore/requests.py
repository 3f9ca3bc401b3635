"""The endpoint `choir.store`: any store takes a request, and hands it on to the one that is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import ChoirError, InternalError, InvalidRequest, MeshUnreachable, error_from_body
from schemas.nodes.model_store import ManageStore, StoredModel, StoreEntry, StoreReply
from schemas.replies import ErrorReply
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller, is_inbox, parse
from services.chassis.registry.directory import Directory
from services.modelstore.catalogue.sources import checked_name
from services.modelstore.copies import Copies
from services.modelstore.jobs.queue import JobQueue
from services.modelstore.jobs.space import Space

SERVICE = "modelstore"
HUB_PREFIX = "hf:"
ORDER_PATIENCE_S = 10.0

log = get_logger("modelstore.requests")


class StoreRequests:
    """Does what clients ask of the stores of the mesh."""

    def __init__(
        self,
        client: Client,
        identity: Identity,
        directory: Directory,
        catalogue: ModelCatalogue,
        jobs: JobQueue,
        copies: Copies,
        space: Space,
        on_removed: Callable[[], None],
    ) -> None:
        self._client = client
        self._identity = identity
        self._directory = directory
        self._catalogue = catalogue
        self._jobs = jobs
        self._copies = copies
        self._space = space
        self._on_removed = on_removed

    async def start(self) -> None:
        """Hears what other stores hand on."""
        await self._client.subscribe(subjects.store_order(self._identity.instance), cb=self._on_order)

    async def handle(self, request: ManageStore, caller: Caller) -> None:
        """Answers a client."""
        await caller.send_what_fits(_versions(await self._answer(request)))

    async def _on_order(self, msg: Msg) -> None:
        if not is_inbox(msg.reply):
            return
        caller = Caller(self._client, msg.reply)
        try:
            await self.handle(parse(msg.data, ManageStore), caller)
        except ChoirError as error:
            await caller.send_error(error)
        except Exception as error:
            log.exception("an order cannot be done")
            await caller.send_error(InternalError(f"{type(error).__name__} in the model store"))

    async def _answer(self, request: ManageStore) -> StoreReply:
        if request.action in ("list", "show"):
            return await self._look(request)
        if request.action == "copies":
            model = await self._copies.set_counts(request)
            return StoreReply(models=(await self._entry(model),))
        if not request.forwarded:
            if request.action == "jobs" and request.store is None:
                return await self._everywhere(request)
            if request.action == "remove" and request.everywhere:
                await self._copies.check_removable(request.name or "")
                reply = await self._everywhere(request)
                await self._copies.forget(request.name or "")
                return reply
            instance = self._instance_of(request.store)
            if instance != self._identity.instance:
                return await self._hand_on(instance, request)
        return await self._do_here(request)

    async def _do_here(self, request: ManageStore) -> StoreReply:
        if request.action == "jobs":
            space = await asyncio.to_thread(self._space.told, self._identity)
            return StoreReply(jobs=self._jobs.told(request.job), spaces=(space,))
        if request.action == "cancel":
            return StoreReply(jobs=(self._jobs.cancel(request.job or "").as_told(),))
        if request.action == "remove":
            await self._copies.remove(request.name or "", last=request.everywhere)
            self._on_removed()
            return StoreReply()
        name = request.name or ""
        if request.action == "pull" and not name.startswith(HUB_PREFIX):
            await self._catalogue.model(checked_name(name))  # who is mistaken hears so at once
            await self._copies.check_allowed(name)
        job = await self._jobs.add(request.model_copy(update={"forwarded": False}))
        return StoreReply(jobs=(job.as_told(),))

    async def _look(self, request: ManageStore) -> StoreReply:
        if request.action == "show":
            models: tuple[StoredModel, ...] = (await self._catalogue.model(checked_name(request.name or "")),)
        else:
            models = await self._catalogue.models()
        return StoreReply(models=tuple([await self._entry(model) for model in models]))

    async def _entry(self, model: StoredModel) -> StoreEntry:
        entry = StoreEntry(model=model, copies=await self._copies.of(model))
        places = self._copies.places(model, entry.copies) if entry.missing else ()
        return entry.model_copy(update={"places": places})

    # --- other stores ---------------------------------------------------------------------

    @property
    def live(self) -> dict[str, str]:
        """The stores that have a lease, with the name of their host."""
        return {
            **{lease.instance: lease.host for lease in self._directory.of(SERVICE)},
            self._identity.instance: self._identity.host,
        }

    def _instance_of(self, store: str | None) -> str:
        """The instance that is meant by its name or its host's; this one if nothing is said."""
        if store is None:
            return self._identity.instance
        live = self.live
        meant = [instance for instance, host in live.items() if store in (instance, host)]
        if len(meant) == 1:
            return meant[0]
        known = ", ".join(sorted(live))
        what = "no store" if not meant else "more than one store"
        raise InvalidRequest(f"store: {what} is called {store!r}; there are: {known}", field="store")

    async def _hand_on(self, instance: str, request: ManageStore) -> StoreReply:
        order = request.model_copy(update={"forwarded": True}).to_bytes()
        try:
            reply = await self._client.request(
                subjects.store_order(instance), order, timeout=ORDER_PATIENCE_S
            )
        except (nats.errors.Error, TimeoutError) as error:
            raise MeshUnreachable(f"the store {instance} does not answer", field="store") from error
        if reply.headers and reply.headers.get(subjects.KIND_HEADER):
            raise error_from_body(ErrorReply.read(reply.data).error)
        return StoreReply.read(reply.data)

    async def _everywhere(self, request: ManageStore) -> StoreReply:
        """What all stores say together. One that does not answer is passed over if it is only looked at."""

        async def ask(instance: str) -> StoreReply:
            try:
                if instance == self._identity.instance:
                    return await self._do_here(request)
                return await self._hand_on(instance, request)
            except MeshUnreachable:
                if request.action != "jobs":
                    raise
                return StoreReply()

        replies = await asyncio.gather(*map(ask, sorted(self.live)))
        return StoreReply(
            jobs=tuple(job for reply in replies for job in reply.jobs),
            spaces=tuple(space for reply in replies for space in reply.spaces),
        )


def _versions(reply: StoreReply) -> Iterator[StoreReply]:
    """All of it, then without the texts of licences, then with ever fewer models."""
    yield reply
    bare = tuple(
        entry.model_copy(update={"model": entry.model.model_copy(update={"licence_text": None})})
        for entry in reply.models
    )
    count = len(bare)
    while count:
        yield reply.model_copy(update={"models": bare[:count], "left_out": len(bare) - count or None})
        count //= 2
