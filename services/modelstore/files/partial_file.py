"""A file that is on its way: what has come of it, and a journal of the chunks that are right.

The journal is written after the chunk, and neither is forced to the disk: whoever opens the file again reads
what the journal names, and believes the hashes. So a kill at any moment, or a host that loses power, costs
the chunks that were on their way. The file gets its name when all of it is there and on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import threading
from pathlib import Path

from schemas.errors import NoRoom, PullFailed
from schemas.nodes.model_store import FileChunks
from services.chassis.blobs.chunks import ChunkTable, chunk_bytes_of, chunks_of
from services.modelstore.files.joined_hash import JoinedHash, Progress
from services.modelstore.files.known_files import sync_folder

RECORD = struct.Struct("<I32s")
READ_BYTES = 1 << 20
CAUGHT_UP_BYTES = 8 << 20
"""So much that came before its turn is hashed at a time: others wait for it."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PartialFile:
    """One of them; `size_bytes` is what the whole file will have. Everything that it does blocks.

    The SHA-256 of the whole is made while it comes, as far as it comes in order; so is the `joined` one of a
    model of which it is the next file.
    """

    def __init__(self, folder: Path, sha256: str, size_bytes: int, joined: JoinedHash | None = None) -> None:
        self._lock = threading.Lock()  # a closed descriptor may be another file's a moment later
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.chunk_bytes = chunk_bytes_of(size_bytes)
        self.count = -(-size_bytes // self.chunk_bytes)
        self._digests: dict[int, bytes] = {}
        self._whole = hashlib.sha256()
        self._joined = None if joined is None else joined.part()
        self._hashed = 0
        self.path = folder / f"{sha256}.part"
        self._journal_path = folder / f"{sha256}.journal"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            self._journal = os.open(self._journal_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise no_room(error, folder) from error

    def resume(self, table: ChunkTable | None, progress: Progress = lambda _more: None) -> None:
        """Reads what came before; of it counts what the journal and, if it is known, the `table` say."""
        journal = os.pread(self._journal, os.fstat(self._journal).st_size, 0)
        claimed = {
            chunk: digest
            for chunk, digest in RECORD.iter_unpack(journal[: len(journal) // RECORD.size * RECORD.size])
            if chunk < self.count
        }
        if len(journal) % RECORD.size:
            os.ftruncate(self._journal, len(journal) // RECORD.size * RECORD.size)
        for chunk, digest in sorted(claimed.items()):
            if table is not None and table.digest(chunk) != digest:
                continue
            content = os.pread(self._file, self.length(chunk), chunk * self.chunk_bytes)
            if hashlib.sha256(content).digest() == digest:
                self._learn(chunk, digest, content)
                progress(len(content))

    def length(self, chunk: int) -> int:
        """How many bytes a chunk has."""
        return min(self.chunk_bytes, self.size_bytes - chunk * self.chunk_bytes)

    def missing(self) -> list[int]:
        """The chunks that have not come yet."""
        return [chunk for chunk in range(self.count) if chunk not in self._digests]

    def has(self, offset: int, length: int) -> bool:
        """Whether all chunks that a range touches are there."""
        end = min(offset + length, self.size_bytes)
        return all(
            chunk in self._digests for chunk in range(offset // self.chunk_bytes, -(-end // self.chunk_bytes))
        )

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that have come. PullFailed if the file is closed."""
        with self._lock:
            self._check_open()
            return os.pread(self._file, length, offset)

    def _check_open(self) -> None:
        if self._file < 0:
            raise PullFailed(f"the file {self.sha256} is not being fetched any more", field="sha256")

    def write(self, chunks: range, content: bytes | memoryview, table: ChunkTable | None = None) -> None:
        """Neighbouring chunks have come; with a `table` they have been compared with it. Raises NoRoom."""
        view = memoryview(content)
        with self._lock:
            self._check_open()
            self._write(chunks, view, table)

    def _write(self, chunks: range, view: memoryview, table: ChunkTable | None) -> None:
        records = []
        try:
            written, start = 0, chunks.start * self.chunk_bytes
            while written < len(view):
                written += os.pwrite(self._file, view[written:], start + written)
            for place, chunk in enumerate(chunks):
                part = view[place * self.chunk_bytes : (place + 1) * self.chunk_bytes]
                digest = table.digest(chunk) if table is not None else hashlib.sha256(part).digest()
                records.append(RECORD.pack(chunk, digest))
                self._learn(chunk, digest, part)
            os.write(self._journal, b"".join(records))
            self._catch_up()
        except OSError as error:
            raise no_room(error, self.path.parent) from error

    def _learn(self, chunk: int, digest: bytes, content: bytes | memoryview) -> None:
        self._digests[chunk] = digest
        if chunk * self.chunk_bytes == self._hashed:
            self._hash(content)

    def _hash(self, content: bytes | memoryview) -> None:
        self._whole.update(content)
        if self._joined is not None:
            self._joined.update(content)
        self._hashed += len(content)

    def _catch_up(self) -> None:
        """Hashes what came before its turn."""
        for _ in range(max(1, CAUGHT_UP_BYTES // self.chunk_bytes)):
            chunk, rest = divmod(self._hashed, self.chunk_bytes)
            if rest or chunk not in self._digests:
                return
            self._hash(os.pread(self._file, self.length(chunk), chunk * self.chunk_bytes))

    def check(self) -> FileChunks:
        """What the file is, now that all of it is there. PullFailed, and nothing is kept, if it is not what
        its SHA-256 says."""
        while self._hashed < self.size_bytes:
            piece = os.pread(self._file, min(READ_BYTES, self.size_bytes - self._hashed), self._hashed)
            if not piece:
                break
            self._hash(piece)
        found = self._whole.hexdigest()
        if found != self.sha256:
            self.discard()
            raise PullFailed(
                f"the file that has come has the SHA-256 {found}, it should be {self.sha256}: nothing of it "
                "is kept",
                field="sha256",
            )
        if self._joined is not None:
            self._joined.end()
        return chunks_of(found, self.size_bytes, (self._digests[chunk] for chunk in range(self.count)))

    def finish(self, path: Path) -> None:
        """All of it is on the disk, and has its name."""
        try:
            os.ftruncate(self._file, self.size_bytes)
            os.fsync(self._file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.path.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise no_room(error, path.parent) from error
        self.close()
        self._journal_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Nothing of it is kept."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """What has come stays."""
        with self._lock:
            for descriptor in (self._file, self._journal):
                if descriptor >= 0:
                    os.close(descriptor)
            self._file = self._journal = -1


def no_room(error: OSError, folder: Path) -> NoRoom | PullFailed:
    """The typed error of a disk that does not take what is written."""
    if error.errno in NO_ROOM:
        return NoRoom(
            f"the disk of {folder} is full. What has come is kept: make room, or set another folder in "
            "section [modelstore], and the same pull goes on from there",
            field="folder",
        )
    return PullFailed(f"{folder} cannot be written: {error.strerror}", field="folder")
