"""The cache of slices on this host's disk, written once for every stage that needs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from schemas.errors import ModelUnusable
from services.engine.model.gguf_header import FileSource
from services.engine.model.slicing import write_slice


def checksum(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file in hexadecimal; ModelUnusable, naming it, where it is not `expected`."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnusable(f"{path}: {error.strerror}", field="path") from error
    if expected is not None and found != expected:
        reason = f"its SHA-256 is {found}, it should be {expected}"
        raise ModelUnusable(f"{path} is damaged or another file: {reason}", field="path")
    return found


class SliceCache:
    """A folder of slices, named after the source's checksum and the layers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder

    def slice_of(self, model: Path, sha256: str, layers: range) -> Path:
        """The file with these layers of a model, written if it is not there; raises as write_slice()."""
        path = self._folder / f"{sha256}-{layers.start}-{layers.stop}.gguf"
        if not path.is_file():
            self._make_folder()
            with FileSource(model) as source:
                write_slice(source, layers, path, source_sha256=sha256)
        return path

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelUnusable(f"the folder of slices {self._folder}: {error.strerror}") from error
