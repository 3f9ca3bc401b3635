"""Chunks of a file, each known by its SHA-256: how large they are, and which bytes are in which.

A chunk is small beside its file, so that whoever needs a few layers fetches hardly more than these, and there
are never so many that the list of their hashes is no message any more.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator

from schemas.nodes.model_store import HASH_BYTES, MIN_CHUNK_BYTES, FileChunks

AIMED_CHUNKS = 4_096
"""A file has at most so many chunks: its boundaries cost at most a few in a thousand of it."""


def chunk_bytes_of(size_bytes: int) -> int:
    """How large the chunks of a file of this size are: a power of two."""
    wanted = -(-size_bytes // AIMED_CHUNKS)
    return max(MIN_CHUNK_BYTES, 1 << (wanted - 1).bit_length())


def chunks_of(sha256: str, size_bytes: int, digests: Iterable[bytes]) -> FileChunks:
    """The message that says what the chunks of a file are."""
    hashes = base64.b64encode(b"".join(digests)).decode()
    return FileChunks(
        sha256=sha256, size_bytes=size_bytes, chunk_bytes=chunk_bytes_of(size_bytes), hashes=hashes
    )


class ChunkTable:
    """The chunks of one file, ready to be asked."""

    def __init__(self, chunks: FileChunks) -> None:
        self.sha256 = chunks.sha256
        self.size_bytes = chunks.size_bytes
        self.chunk_bytes = chunks.chunk_bytes
        self.count = chunks.count
        self._digests = chunks.digests

    def digest(self, chunk: int) -> bytes:
        """The SHA-256 of a chunk."""
        return self._digests[chunk * HASH_BYTES : (chunk + 1) * HASH_BYTES]

    def length(self, chunks: range) -> int:
        """How many bytes are in neighbouring chunks."""
        return min(chunks.stop * self.chunk_bytes, self.size_bytes) - chunks.start * self.chunk_bytes

    def covering(self, offset: int, length: int) -> range:
        """The chunks that have bytes of a range."""
        end = min(offset + length, self.size_bytes)
        if end <= offset:
            return range(0)
        return range(offset // self.chunk_bytes, -(-end // self.chunk_bytes))

    def wrong(self, chunks: range, content: bytes | memoryview) -> Iterator[int]:
        """Which of neighbouring chunks are not what they should be; `content` is what came of them all."""
        view = memoryview(content)
        for place, chunk in enumerate(chunks):
            part = view[place * self.chunk_bytes : (place + 1) * self.chunk_bytes]
            if hashlib.sha256(part).digest() != self.digest(chunk):
                yield chunk
