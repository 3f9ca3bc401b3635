"""A store's part that gives ranges, in the test's own process: what was asked is counted, and it may lie."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path

from nats.aio.client import Client

from infra.testing.mesh import open_mesh
from schemas.nodes.model_store import MIN_CHUNK_BYTES, ManageStore
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.identity import Identity
from services.modelstore.catalogue.gguf_facts import facts_of
from services.modelstore.catalogue.sources import found_at
from services.modelstore.files.hashing import hashed
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.partial_file import RECORD, PartialFile
from services.modelstore.files.range_server import RangeServer
from services.modelstore.jobs.adding import add, described
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job

PATIENCE_S = 180.0
CHUNK_BYTES = MIN_CHUNK_BYTES
"""Of the small models of the tests."""


class _CountedRanges(RangeServer):
    """Says what was read of which file."""

    holder: Holder

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """As the real one, after a look at what the test wants."""
        return self.holder.given(super().read(sha256, offset, length), offset)


class Holder:
    """Holds a file, and stands in the catalogue. `asked` are the ranges it was
    asked for, as (offset, length). `sha256` is the file that it lies about.

    After `most` of them it gives nothing until `go_on` is set; one that `lies` changes a byte of each. It has
    no lease: it is asked for ranges alone.
    """

    def __init__(
        self, client: Client, name: str, folder: Path, *, most: float = float("inf"), lies: bool = False
    ) -> None:
        self.name = name
        self.most = most
        self.lies = lies
        self.sha256 = ""
        self.asked: list[tuple[int, int]] = []
        self.go_on = threading.Event()
        mesh = open_mesh(client, "modelstore", name)
        identity = Identity.of("modelstore", name)
        self.known = KnownFiles(folder / name)
        self.known.load()
        self._clock = mesh.clock
        self.holdings = Holdings(ModelCatalogue(client), self.known, identity, mesh.clock)
        nothing: Mapping[str, PartialFile] = {}
        self._ranges = _CountedRanges(client, name, self.known, nothing)
        self._ranges.holder = self
        self._identity = identity

    async def hold(self, path: Path) -> None:
        """Adds a model, and answers from now on."""
        job = Job("j-1", ManageStore(action="add", path=str(path)), self.name, self._identity.host)
        await add(job, self.known, self.holdings, self._clock)
        await self._ranges.start()

    async def hold_other_bytes(self, model: Path, other: Path) -> None:
        """Answers for a model with the bytes of a file that is made at `other`, and says of its chunks what
        those of that file are."""
        content = bytearray(model.read_bytes())
        content[-1] ^= 1
        other.write_bytes(content)
        self.sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
        chunks = hashed(other).model_copy(update={"sha256": self.sha256})
        self.known.put(other, chunks, own=False)
        await self.holdings.announce(chunks)
        await self._ranges.start()

    async def describe(self, path: Path) -> None:
        """Puts a model into the catalogue without a copy of it."""
        (found,) = found_at(path)
        entry = described(found.name, found, facts_of([path]), [hashed(path)], self._clock.now())
        await self.holdings.describe(entry)

    async def stop(self) -> None:
        """Answers nobody."""
        await self._ranges.stop()

    def chunks(self, asked: tuple[int, int]) -> range:
        """The chunks of a range."""
        offset, length = asked
        return range(offset // CHUNK_BYTES, -(-(offset + length) // CHUNK_BYTES))

    def given(self, content: bytes, offset: int) -> bytes:
        """What goes out. Blocks while as much was given as the test allows."""
        self.asked.append((offset, len(content)))
        if len(self.asked) > self.most:
            self.go_on.wait(PATIENCE_S)
        if self.lies:
            return bytes([content[0] ^ 1]) + content[1:]
        return content


def verified_chunks(folder: Path) -> set[int]:
    """The chunks that the journal of the one file names that a store is fetching."""
    journals = list((folder / "parts").glob("*.journal"))
    if len(journals) != 1:
        return set()
    content = journals[0].read_bytes()
    whole = content[: len(content) // RECORD.size * RECORD.size]
    return {chunk for chunk, _digest in RECORD.iter_unpack(whole)}
