"""Pulls a model that other hosts hold: every chunk from whoever has it, and checked before it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from nats.aio.client import Client

from schemas.errors import PullFailed
from schemas.nodes.model_store import ModelFile
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.blobs.chunks import ChunkTable
from services.chassis.blobs.transfer import Transfer
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.partial_file import PartialFile
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.space import Space

BLOBS, PARTS = "blobs", "parts"


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
        self.partial: dict[str, PartialFile] = {}

    async def pull(self, job: Job) -> None:
        """Makes a copy of the model that a job names. Raises UnknownModel, InvalidRequest, NoRoom,
        PullFailed."""
        model = await self._catalogue.model(job.request.name or "")
        await self.allowed(model.name)
        job.sha256 = model.files[0].sha256
        job.expect(model.size_bytes)
        self.check_room(model.files, model.name)
        for file in model.files:
            await self.from_peers(job, file)
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
                job.found(file.size_bytes)
                await self._holdings.announce(known.chunks)
                return
            chunks = await self._catalogue.chunks(file.sha256)
            if chunks is None or chunks.size_bytes != file.size_bytes:
                raise PullFailed(f"the catalogue does not know the chunks of {file.name}", field="sha256")
            table = ChunkTable(chunks)
            part = await asyncio.to_thread(PartialFile, self.folder / PARTS, file.sha256, file.size_bytes)
            try:
                await asyncio.to_thread(part.resume, table, job.found)
                self.partial[file.sha256] = part

                async def holders() -> Sequence[str]:
                    return await self._catalogue.holders(file.sha256, but=self._instance)

                def sink(segment: range, content: bytes) -> None:
                    part.write(segment, content, table)
                    job.advance(len(content))

                transfer = Transfer(self._client, table, holders, sink, self.patience_s)
                await transfer.fetch(part.missing())
                final = self.final(file.sha256)
                await asyncio.to_thread(part.finish, final)
            finally:
                self.partial.pop(file.sha256, None)
                part.close()
            await asyncio.to_thread(self._known.put, final, chunks, own=True)
            await self._holdings.announce(chunks)

    def final(self, sha256: str) -> Path:
        """Where a file of the store's own lies."""
        return self.folder / BLOBS / sha256
