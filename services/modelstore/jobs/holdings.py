"""What this store holds, in the catalogue: written when a file is whole, and taken back when it is gone."""

from __future__ import annotations

from collections.abc import Iterable

from schemas import subjects
from schemas.errors import InvalidRequest
from schemas.nodes.model_store import FileChunks, FileCopy, StoredModel
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.identity import Identity
from services.chassis.nats.clock import BrokerClock
from services.modelstore.files.known_files import KnownFiles


class Holdings:
    """This store's part of the catalogue."""

    def __init__(
        self, catalogue: ModelCatalogue, known: KnownFiles, identity: Identity, clock: BrokerClock
    ) -> None:
        self._catalogue = catalogue
        self._known = known
        self._identity = identity
        self._clock = clock

    async def announce(self, chunks: FileChunks) -> None:
        """A file is here, all of it."""
        await self._catalogue.say(chunks, self._identity.instance)
        copy = FileCopy(
            sha256=chunks.sha256, instance=self._identity.instance, host=self._identity.host,
            at_s=self._clock.now(),
        )  # fmt: skip
        await self._catalogue.copies_bucket.put(self._key(chunks.sha256), copy)

    async def take_back(self, sha256: str) -> None:
        """A file is here no more."""
        await self._catalogue.copies_bucket.delete(self._key(sha256))
        await self._catalogue.unsay(sha256, self._identity.instance)

    async def describe(self, model: StoredModel) -> StoredModel:
        """Puts a model into the catalogue, and returns what stands there. InvalidRequest if another model has
        the name."""

        def change(there: StoredModel | None) -> StoredModel:
            if there is None:
                return model
            if [file.sha256 for file in there.files] != [file.sha256 for file in model.files]:
                raise InvalidRequest(
                    f"name: {model.name} is another model already, of {there.origin.place}: choose another "
                    "name (--name)",
                    field="name",
                )
            if there.joined_sha256 is None:
                return there.model_copy(update={"joined_sha256": model.joined_sha256})
            return there

        return await self._catalogue.models_bucket.change(subjects.stored_model_key(model.name), change)

    async def joined_sha256(self, files: Iterable[str]) -> str | None:
        """The SHA-256 of files by theirs, one after another, if a model of just these says it."""
        wanted = list(files)
        models: Iterable[StoredModel] = await self._catalogue.models()
        same = (model for model in models if [file.sha256 for file in model.files] == wanted)
        return next((model.joined_sha256 for model in same if model.joined_sha256 is not None), None)

    async def reconcile(self) -> None:
        """After a start, or a reconnection: the catalogue says what is here, neither more nor less."""
        here = {known.chunks.sha256: known for known in self._known.all}
        mine = await self._catalogue.copies_bucket.keys(
            self._key("*").replace(subjects.encode_token("*"), "*")
        )
        for key in mine:
            sha256 = key.partition(".")[0]
            if self._known.get(sha256) is None and (await self._catalogue.copies_bucket.get(key)).value:
                await self._catalogue.copies_bucket.delete(key)
        told = {key.partition(".")[0] for key in mine}
        for sha256, known in here.items():
            if sha256 not in told and self._known.get(sha256) is not None:
                await self.announce(known.chunks)

    async def needed(self, sha256: str, *, but: str) -> bool:
        """Whether another model than `but` has this file."""
        models: Iterable[StoredModel] = await self._catalogue.models()
        return any(
            model.name != but and any(file.sha256 == sha256 for file in model.files) for model in models
        )

    def _key(self, sha256: str) -> str:
        return subjects.model_copy_key(sha256, self._identity.instance)
