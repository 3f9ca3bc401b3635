"""The identity of a file: its SHA-256 and that of each chunk, made in one pass."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from schemas.errors import ModelUnusable
from schemas.nodes.model_store import FileChunks
from services.chassis.blobs.chunks import chunk_bytes_of, chunks_of
from services.modelstore.files.joined_hash import READ_BYTES, JoinedHash, Progress


def hashed(
    path: Path, progress: Progress = lambda _more: None, joined: JoinedHash | None = None
) -> FileChunks:
    """Reads a file once, and says what it is; of one of several files it is the next for `joined`. Blocks;
    ModelUnusable if it cannot be read, or has changed meanwhile."""
    whole, digests = hashlib.sha256(), []
    part = None if joined is None else joined.part()
    try:
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            step = chunk_bytes_of(before.st_size)
            left = before.st_size
            while left > 0:
                chunk = hashlib.sha256()
                in_chunk = min(step, left)
                while in_chunk > 0:
                    piece = file.read(min(READ_BYTES, in_chunk))
                    if not piece:
                        raise ModelUnusable(f"{path} has become shorter while it was read", field="path")
                    chunk.update(piece)
                    whole.update(piece)
                    if part is not None:
                        part.update(piece)
                    in_chunk -= len(piece)
                    left -= len(piece)
                    progress(len(piece))
                digests.append(chunk.digest())
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read: {error.strerror}", field="path") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ModelUnusable(f"{path} has changed while it was read", field="path")
    if before.st_size == 0:
        raise ModelUnusable(f"{path} is empty", field="path")
    if part is not None:
        part.end()
    return chunks_of(whole.hexdigest(), before.st_size, digests)
