"""The catalogue of models that the mesh keeps: three buckets, read when they are needed.

A model is small, and its chunks are not, so nobody keeps a copy of all of it. Who holds a file is written
down when it is whole, and when a store has given it up: a host that is away still holds what it held.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import UnknownModel
from schemas.nodes.model_store import FileChunks, FileCopy, StoredModel
from services.chassis.nats.bucket import Bucket, messages

READS_AT_ONCE = 16
ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class FileTable:
    """What the chunks of a file are by the word of those `holders`: instances that have the whole of it."""

    chunks: FileChunks
    holders: tuple[str, ...]


class ModelCatalogue:
    """What is kept, and where. Whatever it reads or writes raises BrokerUnavailable."""

    def __init__(self, client: Client) -> None:
        self.models_bucket = Bucket(client, subjects.STORED_MODELS_BUCKET, messages(StoredModel))
        self.files_bucket = Bucket(client, subjects.MODEL_FILES_BUCKET, messages(FileChunks))
        self.copies_bucket = Bucket(client, subjects.MODEL_COPIES_BUCKET, messages(FileCopy))

    async def model(self, name: str) -> StoredModel:
        """The model of this name. Raises UnknownModel."""
        found = (await self.models_bucket.get(subjects.stored_model_key(name))).value if name else None
        if found is None:
            raise UnknownModel(
                f"the store has no model {name!r}: `choir model list` shows what there is, and `choir model "
                "add` and `choir pull` add to it",
                field="name",
            )
        return found

    async def models(self) -> tuple[StoredModel, ...]:
        """All models, by name."""
        keys = await self.models_bucket.keys(">")
        found = [model for model in await _all(self.models_bucket, keys) if model is not None]
        return tuple(sorted(found, key=lambda model: model.name))

    async def tables(self, sha256: str, *, but: str = "") -> tuple[FileTable, ...]:
        """What stores say that the chunks of a file are; empty where nobody has seen all of it yet. There is
        more than one only if some of them lie: those that most hold, without the one that asks, come first.
        """
        first = (await self.files_bucket.get(subjects.model_file_key(sha256))).value
        if first is None:
            return ()
        keys = await self._other_keys(sha256)
        found = await _all(self.files_bucket, keys)
        others = dict(zip(keys, found, strict=True))
        by_table: dict[FileChunks, list[str]] = {first: []}
        for holder in await self.holders(sha256, but=but):
            said = others.get(subjects.other_model_file_key(sha256, holder))
            by_table.setdefault(said or first, []).append(holder)
        tables = [FileTable(chunks, tuple(holders)) for chunks, holders in by_table.items()]
        return tuple(sorted(tables, key=lambda table: -len(table.holders)))

    async def say(self, chunks: FileChunks, instance: str) -> None:
        """Writes down what the chunks of a file are by the word of a store that holds it: beside what another
        has said before, where that is something else."""
        key = subjects.model_file_key(chunks.sha256)
        first = await self.files_bucket.change(key, lambda there: there or chunks)
        if first != chunks:
            await self.files_bucket.put(subjects.other_model_file_key(chunks.sha256, instance), chunks)
        else:
            await self.unsay(chunks.sha256, instance)

    async def unsay(self, sha256: str, instance: str) -> None:
        """This store contradicts nobody any more."""
        key = subjects.other_model_file_key(sha256, instance)
        if key in await self._other_keys(sha256):
            await self.files_bucket.delete(key)

    async def forget_file(self, sha256: str) -> None:
        """Nobody says anything of the chunks of a file any more, nor that it has the file."""
        for key in (subjects.model_file_key(sha256), *await self._other_keys(sha256)):
            await self.files_bucket.delete(key)
        for copy in await self.copies(sha256):
            await self.copies_bucket.delete(subjects.model_copy_key(sha256, copy.instance))

    async def _other_keys(self, sha256: str) -> list[str]:
        return await self.files_bucket.keys(subjects.other_model_file_keys(sha256))

    async def copies(self, sha256: str) -> tuple[FileCopy, ...]:
        """Who holds a file, or a part of it."""
        keys = await self.copies_bucket.keys(subjects.model_copy_keys(sha256))
        return tuple(copy for copy in await _all(self.copies_bucket, keys) if copy is not None)

    async def holders(self, sha256: str, *, but: str = "") -> tuple[str, ...]:
        """The instances that hold the whole of a file, without the one that asks."""
        copies = await self.copies(sha256)
        return tuple(copy.instance for copy in copies if copy.whole and copy.instance != but)


async def _all(bucket: Bucket[ValueT], keys: list[str]) -> list[ValueT | None]:
    """The values of keys, None for those that are gone meanwhile."""
    room = asyncio.Semaphore(READS_AT_ONCE)

    async def one(key: str) -> ValueT | None:
        async with room:
            return (await bucket.get(key)).value

    return await asyncio.gather(*map(one, keys))
