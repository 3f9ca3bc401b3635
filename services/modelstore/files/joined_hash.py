"""The SHA-256 of a model in several files, one after another, made of the bytes as they pass.

Answers, receipts and plans name a model by it. Of each file the store knows its own hash alone, from which
this one does not follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ModelUnusable

READ_BYTES = 1 << 20

Progress = Callable[[int], None]
"""Told how many bytes more are done."""


class JoinedHash:
    """That of the files so far. Each has a `PartHash`, in their order."""

    def __init__(self) -> None:
        self.so_far = hashlib.sha256()

    def part(self) -> PartHash:
        """The next file begins, or begins again: what came of it before does not count."""
        return PartHash(self)

    def read(self, path: Path, progress: Progress) -> None:
        """The next file lies here already, and is read once more. Blocks; ModelUnusable if that fails."""
        part = self.part()
        try:
            with path.open("rb", buffering=0) as file:
                while piece := file.read(READ_BYTES):
                    part.update(piece)
                    progress(len(piece))
        except OSError as error:
            raise ModelUnusable(f"{path} cannot be read: {error.strerror}", field="path") from error
        part.end()

    def hexdigest(self) -> str:
        """Of all files that have ended."""
        return self.so_far.hexdigest()


class PartHash:
    """What has come of one file, in its order."""

    def __init__(self, joined: JoinedHash) -> None:
        self._joined = joined
        self._hash = joined.so_far.copy()

    def update(self, content: bytes | memoryview) -> None:
        """The next bytes of the file."""
        self._hash.update(content)

    def end(self) -> None:
        """All of the file has come, and is what it should be."""
        self._joined.so_far = self._hash
