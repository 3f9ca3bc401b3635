"""Tells agents of this host which models lie here whole, and where: they load them from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.model_store import HeldModel, HeldModels, ListHeld, StoredModel
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller, is_inbox, parse
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.named_parts import NamedParts

LOOKED_UP_FOR_S = 10.0
"""So long the catalogue is not read again, unless something is done here."""

log = get_logger("modelstore.held")


class HeldModelsEndpoint:
    """The endpoint `choir.signal.held.<instance>`."""

    def __init__(
        self,
        client: Client,
        instance: str,
        catalogue: ModelCatalogue,
        known: KnownFiles,
        named: NamedParts,
    ) -> None:
        self._client = client
        self._instance = instance
        self._catalogue = catalogue
        self._known = known
        self._named = named
        self._models: tuple[StoredModel, ...] = ()
        self._looked_up_s = float("-inf")

    async def start(self) -> None:
        """Answers from now on."""
        subject = subjects.held_models(self._instance)
        self._subscription = await self._client.subscribe(subject, cb=self._on_request)

    async def stop(self) -> None:
        """Answers nobody any more."""
        await self._subscription.unsubscribe()

    def look_again(self) -> None:
        """Something was added, fetched or removed here."""
        self._looked_up_s = float("-inf")

    async def _on_request(self, msg: Msg) -> None:
        if not is_inbox(msg.reply):
            return
        caller = Caller(self._client, msg.reply)
        try:
            parse(msg.data, ListHeld)
            await caller.send_what_fits(_versions(await self._held()))
        except ChoirError as error:
            log.warning("an agent cannot be told what is here", why=error.message)
            await caller.send_error(error)

    async def _held(self) -> tuple[HeldModel, ...]:
        if time.monotonic() > self._looked_up_s + LOOKED_UP_FOR_S:
            self._looked_up_s = time.monotonic()
            self._models = await self._catalogue.models()
        held = [await asyncio.to_thread(self._held_as, model) for model in self._models]
        return tuple(one for one in held if one is not None)

    def _held_as(self, model: StoredModel) -> HeldModel | None:
        found = (self._known.get(file.sha256) for file in model.files)
        known = [one for one in found if one is not None]
        if len(known) < len(model.files):
            return None
        return HeldModel(
            name=model.name,
            file=model.files[0].name,
            paths=tuple(map(str, self._named.paths(model, known))),
            sha256=model.files[0].sha256,
            size_bytes=model.size_bytes,
            parameters=model.parameters,
            quantisation=model.quantisation,
            repository=model.origin.place if model.origin.kind == "hugging_face" else None,
            joined_sha256=model.joined_sha256,
        )


def _versions(models: tuple[HeldModel, ...]) -> Iterator[HeldModels]:
    """All of them, and then ever fewer."""
    yield HeldModels(models=models)
    count = len(models)
    while count:
        count //= 2
        yield HeldModels(models=models[:count], left_out=len(models) - count)
