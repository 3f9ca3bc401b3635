"""Pulls a model that other hosts hold: every chunk from whoever has it, and checked before it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from nats.aio.client import Client

from schemas.errors import PullFailed
from schemas.nodes.model_store import FileChunks, ModelFile
from services.chassis.blobs.catalogue import FileTable, ModelCatalogue
from services.chassis.blobs.chunks import ChunkTable
from services.chassis.blobs.transfer import Transfer
from services.chassis.logs import get_logger
from services.modelstore.files.joined_hash import JoinedHash
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.partial_file import PartialFile
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.space import Space

BLOBS, PARTS = "blobs", "parts"

log = get_logger("modelstore.pulling")


class Puller:
    """Brings files into the folder of the store. `partial` are those that are on their way; `allowed` raises
    InvalidRequest if there are to be no more copies of a model."""

    def __init__(
        self,
        client: Client,
        instance: str,
        folder: Path,
        patience_s: float,
        catalogue: ModelCatalogue,
        known: KnownFiles,
        holdings: Holdings,
        space: Space,
        allowed: Callable[[str], Awaitable[None]],
    ) -> None:
        self._client = client
        self._instance = instance
        self.folder = folder
        self.patience_s = patience_s
        self._catalogue = catalogue
        self._known = known
        self._holdings = holdings
        self._space = space
        self.allowed = allowed
        self._busy: dict[str, asyncio.Lock] = {}
        self._false: set[FileChunks] = set()
        self.partial: dict[str, PartialFile] = {}

    async def pull(self, job: Job) -> None:
        """Makes a copy of the model that a job names. Raises UnknownModel, InvalidRequest, NoRoom,
        PullFailed."""
        model = await self._catalogue.model(job.request.name or "")
        await self.allowed(model.name)
        job.sha256 = model.files[0].sha256
        job.expect(model.size_bytes)
        self.check_room(model.files, model.name)
        job.joined = JoinedHash() if model.whole_sha256 is None else None
        for file in model.files:
            await self.from_peers(job, file)
        if job.joined is not None:
            joined_sha256 = job.joined.hexdigest()
            await self._holdings.describe(model.model_copy(update={"joined_sha256": joined_sha256}))
        job.models = (model.name,)

    def check_room(self, files: Sequence[ModelFile], model: str) -> None:
        """Raises NoRoom if what is missing of these files does not fit."""
        wanted = sum(
            file.size_bytes - self._on_disk(file) for file in files if self._known.get(file.sha256) is None
        )
        self._space.check(wanted, model)

    def _on_disk(self, file: ModelFile) -> int:
        part = self.folder / PARTS / f"{file.sha256}.part"
        return min(part.stat().st_blocks * 512, file.size_bytes) if part.exists() else 0

    def alone(self, sha256: str) -> asyncio.Lock:
        """Held by the one job of this host that brings a file: two would write into one place."""
        return self._busy.setdefault(sha256, asyncio.Lock())

    async def from_peers(self, job: Job, file: ModelFile) -> None:
        """One file, from hosts that hold the whole of it."""
        async with self.alone(file.sha256):
            known = self._known.get(file.sha256)
            if known is not None:
                if job.joined is None:
                    job.found(file.size_bytes)
                else:
                    await asyncio.to_thread(job.joined.read, known.path, job.advance)
                await self._holdings.announce(known.chunks)
                return
            problem = PullFailed(f"the catalogue does not know the chunks of {file.name}", field="sha256")
            for table in await self.tables(file):
                try:
                    await self._by_table(job, file, table)
                    return
                except PullFailed as error:
                    log.error("a file has not come", file=file.name, holders=table.holders, why=error.message)
                    problem = error
            raise problem

    async def tables(self, file: ModelFile) -> tuple[FileTable, ...]:
        """What others say that the chunks of a file are, without those that were found out to be false."""
        tables = [
            table
            for table in await self._catalogue.tables(file.sha256, but=self._instance)
            if table.chunks.size_bytes == file.size_bytes
        ]
        right = [table for table in tables if table.chunks not in self._false]
        if tables and not right:
            raise _false(file, tables[0])
        return tuple([table for table in right if table.holders] or right)

    async def _by_table(self, job: Job, file: ModelFile, said: FileTable) -> None:
        """The file, from those who say the same of its chunks. PullFailed, and nothing is kept, if what comes
        by their word is not the file."""
        table, done_bytes = ChunkTable(said.chunks), job.done_bytes
        part = await asyncio.to_thread(
            PartialFile, self.folder / PARTS, file.sha256, file.size_bytes, job.joined
        )
        try:
            await asyncio.to_thread(part.resume, table, job.found)
            self.partial[file.sha256] = part

            async def holders() -> Sequence[str]:
                tables = await self._catalogue.tables(file.sha256, but=self._instance)
                return next((one.holders for one in tables if one.chunks == said.chunks), ())

            def sink(segment: range, content: bytes) -> None:
                part.write(segment, content, table)
                job.advance(len(content))

            transfer = Transfer(self._client, table, holders, sink, self.patience_s)
            await transfer.fetch(part.missing())
            try:
                chunks = await asyncio.to_thread(part.check)
            except PullFailed as error:
                self._false.add(said.chunks)
                raise _false(file, said) from error
            final = self.final(file.sha256)
            await asyncio.to_thread(part.finish, final)
        except PullFailed:
            job.go_back(done_bytes)
            raise
        finally:
            self.partial.pop(file.sha256, None)
            part.close()
        await asyncio.to_thread(self._known.put, final, chunks, own=True)
        await self._holdings.announce(chunks)

    def final(self, sha256: str) -> Path:
        """Where a file of the store's own lies."""
        return self.folder / BLOBS / sha256


def _false(file: ModelFile, said: FileTable) -> PullFailed:
    who = ", ".join(said.holders) or "a store that holds it no more"
    return PullFailed(
        f"what {who} says of the chunks of {file.name} is false: the file that comes by that has another "
        f"SHA-256 than {file.sha256}. Nothing of it is kept; remove that copy (`choir model rm --store`)",
        field="sha256",
    )
