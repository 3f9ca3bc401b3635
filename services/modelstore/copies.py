"""How many copies there are of a model, who is to make one more, and when one may go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from schemas import subjects
from schemas.errors import ChoirError, InvalidRequest
from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import CopyPlace, FileCopy, ManageStore, ModelCopy, StoredModel
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.logs import get_logger
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.named_parts import NamedParts
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.places import places_for

LOOK_INTERVAL_S = 5.0
LOOKS_BEFORE_REPAIR = 3
"""A store that is only started anew is back by then: nothing is copied for it."""

log = get_logger("modelstore.copies")


class Copies:
    """The copies of all models, as this store sees them. `live` tells which stores have a lease, `nodes` what
    all leases say. `room_bytes` is what this store may still write, as of the last look."""

    def __init__(
        self,
        instance: str,
        catalogue: ModelCatalogue,
        known: KnownFiles,
        named: NamedParts,
        holdings: Holdings,
        live: Callable[[], dict[str, str]],
        pull: Callable[[str], object],
        room: Callable[[], int],
        nodes: Callable[[], Sequence[NodeLease]],
    ) -> None:
        self._instance = instance
        self._catalogue = catalogue
        self._known = known
        self._named = named
        self._holdings = holdings
        self._live = live
        self._pull = pull
        self._room = room
        self._nodes = nodes
        self.room_bytes = room()
        self._short: dict[str, int] = {}

    async def of(self, model: StoredModel) -> tuple[ModelCopy, ...]:
        """Who holds a model, or a part of it."""
        live = self._live()
        by_instance: dict[str, list[FileCopy]] = {}
        for sha256 in {file.sha256 for file in model.files}:
            for copy in await self._catalogue.copies(sha256):
                by_instance.setdefault(copy.instance, []).append(copy)
        files = len({file.sha256 for file in model.files})
        return tuple(
            ModelCopy(
                instance=instance,
                host=copies[0].host,
                whole=sum(copy.whole for copy in copies) == files,
                live=instance in live,
            )
            for instance, copies in sorted(by_instance.items())
        )

    async def set_counts(self, request: ManageStore) -> StoredModel:
        """Says how many copies of a model there ought to be. InvalidRequest if that contradicts itself."""
        await self._catalogue.model(request.name or "")

        def change(model: StoredModel | None) -> StoredModel:
            assert model is not None
            least = request.min_copies or model.min_copies
            most = request.max_copies or max(model.max_copies, least)
            if least > most:
                raise InvalidRequest(
                    f"min_copies: {least} are more than max_copies, {most}", field="min_copies"
                )
            return model.model_copy(update={"min_copies": least, "max_copies": most})

        key = subjects.stored_model_key(request.name or "")
        return await self._catalogue.models_bucket.change(key, change)

    async def check_allowed(self, name: str) -> None:
        """Raises InvalidRequest if as many other hosts that are there now hold a model as may. A name that is
        not known passes, and so does a model that this host holds already."""
        model = (await self._catalogue.models_bucket.get(subjects.stored_model_key(name))).value
        if model is None:
            return
        copies = [copy for copy in await self.of(model) if copy.whole and copy.live]
        if len(copies) < model.max_copies or any(copy.instance == self._instance for copy in copies):
            return
        raise InvalidRequest(
            f"name: {len(copies)} hosts hold {name}, and at most {model.max_copies} are to: `choir model "
            "copies --max` allows more, and `choir model rm` removes one",
            field="name",
        )

    async def check_removable(self, name: str) -> None:
        """Raises UnknownModel."""
        await self._catalogue.model(name)

    async def remove(self, name: str, *, last: bool) -> None:
        """Gives up this store's copy. Unless the `last` one may go, InvalidRequest if nobody else that is
        there now holds all of it."""
        model = await self._catalogue.model(name)
        held = {
            file.sha256: known
            for file in model.files
            if (known := self._known.get(file.sha256)) is not None
            and (last or not await self._holdings.needed(file.sha256, but=name))
        }
        if not last and not held:
            raise InvalidRequest(f"name: this host has no copy of {name} of its own", field="name")
        # Taken back before the others are counted: of two that do so at once neither counts the other.
        for sha256 in held:
            await self._holdings.take_back(sha256)
        others = await self._others(model)
        if not last and len(others) < model.min_copies:
            for known in held.values():
                await self._holdings.announce(known.chunks)
            raise InvalidRequest(
                f"name: {len(others)} other hosts that are there now hold {name}, and {model.min_copies} "
                "have to: the copy stays. `choir model copies` says how many there are to be, and "
                "`choir model rm --everywhere` gives the model up",
                field="name",
            )
        for sha256 in held:
            await asyncio.to_thread(self._known.forget, sha256)
        if held:
            await asyncio.to_thread(self._named.remove, model)
        log.warning("a copy was removed", model=name, others=others)

    async def _others(self, model: StoredModel) -> list[str]:
        """The other hosts that are there now and hold all of a model."""
        return [
            copy.host
            for copy in await self.of(model)
            if copy.whole and copy.live and copy.instance != self._instance
        ]

    async def forget(self, name: str) -> None:
        """The model is in the catalogue no more, nor are files that no other one has."""
        model = await self._catalogue.model(name)
        await self._catalogue.models_bucket.delete(subjects.stored_model_key(name))
        for sha256 in dict.fromkeys(file.sha256 for file in model.files):
            if not await self._holdings.needed(sha256, but=name):
                await self._catalogue.forget_file(sha256)

    async def keep(self) -> None:
        """Looks again and again whether a model has too few copies, and makes one if it is this host's
        turn."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                await self.repair()
            except ChoirError as error:
                log.warning("the copies could not be looked at", why=error.message)

    async def repair(self) -> None:
        """Begins to pull what has had too few live copies for a while."""
        self.room_bytes = await asyncio.to_thread(self._room)
        short = {}
        for model in await self._catalogue.models():
            copies = await self.of(model)
            whole = [copy for copy in copies if copy.whole and copy.live]
            if not whole or len(whole) >= model.min_copies:
                continue
            short[model.name] = looks = self._short.get(model.name, 0) + 1
            if looks < LOOKS_BEFORE_REPAIR or any(copy.instance == self._instance for copy in whole):
                continue
            turn = self._turn(model, copies)
            # Whoever is first may have no room: the next one's turn comes with the next looks.
            if (
                looks - LOOKS_BEFORE_REPAIR >= turn * LOOKS_BEFORE_REPAIR
                and self.room_bytes > model.size_bytes
            ):
                log.warning("makes a copy: there are too few", model=model.name, copies=len(whole))
                self._pull(model.name)
        self._short = short

    def places(self, model: StoredModel, copies: Iterable[ModelCopy]) -> tuple[CopyPlace, ...]:
        """The stores that are there now and have no whole copy of a model, whoever is to make one next before
        the others."""
        holders = {copy.instance for copy in copies if copy.whole and copy.live}
        free = {instance: host for instance, host in self._live().items() if instance not in holders}
        return places_for(model, free, self._nodes())

    def _turn(self, model: StoredModel, copies: Sequence[ModelCopy]) -> int:
        """How many others are to try before this store does."""
        order = [place.instance for place in self.places(model, copies)]
        missing = model.min_copies - sum(copy.whole and copy.live for copy in copies)
        return max(0, order.index(self._instance) - missing + 1) if self._instance in order else 0
