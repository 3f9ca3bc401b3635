"""A file of the store, read by range from the hosts that hold it, by code that runs in a thread.

What is read is fetched in whole chunks, for only those can be checked. The last ones are kept, and those of
the file's beginning for good once they are pinned: a header is read again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nats.aio.client import Client

from schemas.errors import ModelUnusable, PullFailed
from schemas.nodes.model_store import FileChunks, ModelFile, StoredModel
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.blobs.chunks import ChunkTable
from services.chassis.blobs.kept_chunks import KeptChunks
from services.chassis.blobs.transfer import PATIENCE_S, Transfer

AHEAD_BYTES = 8 * 1024 * 1024
"""So much of what is known to be read soon is fetched at a time, from all holders: a tensor may be small."""
GRACE_S = 10.0


class RangeSource:
    """Bytes of one file, as `read` gives them; `fetched_bytes` counts what came over the wire. Files of one
    model share what is `kept`."""

    def __init__(
        self,
        client: Client,
        catalogue: ModelCatalogue,
        table: ChunkTable,
        kept: KeptChunks,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._table = table
        self._kept = kept
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._ahead = max(2, AHEAD_BYTES // table.chunk_bytes)
        self._foreseen: list[int] = []
        self._places: dict[int, int] = {}  # of each chunk in the list of those that are read next
        self._banned: dict[str, str] = {}
        self.fetched_bytes = 0

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return self._table.size_bytes

    @property
    def sha256(self) -> str:
        """Which file it is."""
        return self._table.sha256

    def pin(self, end: int) -> None:
        """The bytes before `end` are kept once they were read."""
        self._kept.pin(self.sha256, self._table.covering(0, end).stop)

    def foresee(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These ranges, each an offset and a length, are read next, in this order: their chunks are fetched
        with those before them. Holders that have sent other bytes have another chance."""
        self._banned.clear()
        self._foreseen = list(dict.fromkeys(c for one in ranges for c in self._table.covering(*one)))
        self._places = {chunk: place for place, chunk in enumerate(self._foreseen)}

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`. Blocks its thread; raises PullFailed if nobody sends them."""
        chunks = self._table.covering(offset, length)
        if not chunks:
            return b""
        here = {chunk: self._kept.get(self.sha256, chunk) for chunk in chunks}
        fetched = {chunk: content for chunk, content in here.items() if content is not None}
        missing = [chunk for chunk in chunks if chunk not in fetched]
        if missing:
            come = self._fetched([*missing, *self._soon(missing[-1])])
            soon = {chunk: content for chunk, content in come.items() if chunk not in chunks}
            self._kept.put(self.sha256, soon)
            fetched |= come
        self._kept.put(self.sha256, {chunk: fetched[chunk] for chunk in chunks})
        content = b"".join(fetched[chunk] for chunk in chunks)
        start = offset - chunks.start * self._table.chunk_bytes
        return content[start : start + length]

    def _soon(self, chunk: int) -> list[int]:
        """What is read after a chunk, as far as that is known, and is not here."""
        if chunk not in self._places:
            return []
        after = self._places[chunk] + 1
        soon = self._foreseen[after : after + self._ahead]
        return [one for one in soon if not self._kept.has(self.sha256, one)]

    def _fetched(self, missing: list[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        step = self._table.chunk_bytes

        def sink(segment: range, content: bytes) -> None:
            for place, chunk in enumerate(segment):
                found[chunk] = content[place * step : (place + 1) * step]

        async def holders() -> Sequence[str]:
            return await self._catalogue.holders(self.sha256)

        transfer = Transfer(self._client, self._table, holders, sink, self._patience_s, self._banned)
        future = asyncio.run_coroutine_threadsafe(transfer.fetch(missing), self._loop)
        try:
            future.result(self._patience_s * (1 + len(missing)) + GRACE_S)
        except TimeoutError as error:
            future.cancel()
            raise PullFailed(f"the file {self.sha256} has not come in time", field="sha256") from error
        self.fetched_bytes += transfer.fetched_bytes
        return found


async def open_kept(client: Client, name: str) -> tuple[StoredModel, tuple[RangeSource, ...]]:
    """A model of the store, whichever hosts have it, and each of its files. Raises UnknownModel, and
    ModelUnusable where the chunks of a file are not known or in dispute."""
    catalogue, kept = ModelCatalogue(client), KeptChunks()
    model = await catalogue.model(name)
    tables = [ChunkTable(await _only_chunks(catalogue, file)) for file in model.files]
    return model, tuple(RangeSource(client, catalogue, table, kept) for table in tables)


async def _only_chunks(catalogue: ModelCatalogue, file: ModelFile) -> FileChunks:
    """The one table of a file: whoever reads a part of it cannot tell which of two is right."""
    tables = await catalogue.tables(file.sha256)
    held = [table for table in tables if table.holders]
    if len(held) > 1:
        said = " and ".join(", ".join(table.holders) for table in held)
        raise ModelUnusable(
            f"the stores {said} contradict each other about the chunks of {file.name}: remove the copy "
            "that is wrong (`choir model rm --store`); a pull at another host finds out which it is",
            field="path",
        )
    found = next(iter(held or tables), None)
    if found is None or found.chunks.size_bytes != file.size_bytes:
        raise ModelUnusable(f"the catalogue does not know the chunks of {file.name}", field="path")
    return found.chunks
