"""The files that this host holds whole: where each lies, and what it was when it was read.

What is known stands in one small JSON file for each. A file that is the same to the system (device, inode,
size, time of change) is not read again; one that is not the same any more is not given to anybody.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import ModelUnusable
from schemas.nodes.model_store import FileChunks
from services.chassis.logs import get_logger

SUFFIX = ".json"

log = get_logger("modelstore.files")


class KnownFile(BaseModel):
    """A file as it was when its chunks were hashed. `own` is one that the store has fetched itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Path
    device: int
    inode: int
    size_bytes: int
    changed_ns: int
    own: bool
    chunks: FileChunks

    @classmethod
    def of(cls, path: Path, chunks: FileChunks, *, own: bool) -> KnownFile:
        """A file as it is now."""
        found = path.stat()
        return cls(
            path=path, device=found.st_dev, inode=found.st_ino, size_bytes=found.st_size,
            changed_ns=found.st_mtime_ns, own=own, chunks=chunks,
        )  # fmt: skip

    def is_still(self, found: os.stat_result) -> bool:
        """Whether a file is the one that was read."""
        seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return seen == (self.device, self.inode, self.size_bytes, self.changed_ns)


class KnownFiles:
    """All of them, by the SHA-256 of their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, KnownFile] = {}

    def load(self) -> None:
        """Reads what is known. What cannot be read is forgotten, and said."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                known = KnownFile.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                log.warning("the kept facts about a file cannot be read", path=str(path), why=str(error))
                path.unlink(missing_ok=True)
                continue
            self._files[known.chunks.sha256] = known

    @property
    def all(self) -> tuple[KnownFile, ...]:
        """Every one, whether it is still there or not. Others may come meanwhile, from other threads."""
        return tuple(self._files.values())

    @property
    def own_bytes(self) -> int:
        """What the store's own files take."""
        return sum(known.size_bytes for known in self.all if known.own)

    def same_as(self, path: Path) -> FileChunks | None:
        """What a file is, if it is one that was read before; None if it has to be read."""
        try:
            found = path.stat()
        except OSError as error:
            raise ModelUnusable(f"{path} cannot be read: {error.strerror}", field="path") from error
        return next((known.chunks for known in self.all if known.is_still(found)), None)

    def get(self, sha256: str) -> KnownFile | None:
        """A file that is held here and is still what it was."""
        known = self._files.get(sha256)
        if known is None:
            return None
        try:
            return known if known.is_still(known.path.stat()) else None
        except OSError:
            return None

    def put(self, path: Path, chunks: FileChunks, *, own: bool) -> None:
        """This file is held here. A copy of the store's own stays what counts, for nobody else changes it.
        A disk that takes no note of it does not undo that: it is known until the store ends."""
        before = self.get(chunks.sha256)
        if before is not None and (before.own or before.path == path):
            return
        known = KnownFile.of(path, chunks, own=own)
        try:
            write_whole(self._place(chunks.sha256), known.model_dump_json().encode())
        except OSError as error:
            log.error("facts about a file cannot be kept", path=str(path), why=error.strerror)
        self._files[chunks.sha256] = known

    def forget(self, sha256: str) -> None:
        """It is held here no more; a file of the store's own is deleted."""
        known = self._files.pop(sha256, None)
        self._place(sha256).unlink(missing_ok=True)
        if known is not None and known.own:
            known.path.unlink(missing_ok=True)

    def _place(self, sha256: str) -> Path:
        return self._folder / f"{sha256}{SUFFIX}"


def write_whole(path: Path, content: bytes) -> None:
    """Puts a file in its place only when all of it is on the disk. Raises OSError, and leaves nothing."""
    part = path.with_name(f"{path.name}.new")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """What was renamed in a folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
