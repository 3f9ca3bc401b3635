"""The cache of slices on this host's disk, written once for every stage that needs them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from schemas.errors import ModelUnusable
from services.engine.model.gguf.header import ByteSource
from services.engine.model.gguf.split_files import model_source
from services.engine.model.slicing import write_slice

UNUSED_S = 3600.0
"""A slice that nobody has asked for in so long, and no plan names, was left behind by moves of the cut."""
SLICE = re.compile(r"([0-9a-f]{64})-(\d+)-(\d+)\.gguf")


class SliceCache:
    """A folder of slices, named after the source's checksum and the layers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder

    def slice_of(self, model: Path | ByteSource, sha256: str, layers: range) -> Path:
        """The file with these layers of a model, written if it is not there; raises as write_slice(). Of a
        model that is no file here no more is read than these layers take."""
        path = self._folder / f"{sha256}-{layers.start}-{layers.stop}.gguf"
        if not path.is_file():
            self._write(model, sha256, layers, path)
        with suppress(OSError):
            os.utime(path)
        return path

    def forget_unused(self, sha256: str, used: Collection[range]) -> None:
        """Removes the slices of a model that are not among these, and were last asked for long ago. Whoever
        has one loaded keeps it."""
        named = ((path, SLICE.fullmatch(path.name)) for path in self._folder.glob(f"{sha256}-*.gguf"))
        for path, found in named:
            if found is None or range(int(found[2]), int(found[3])) in used:
                continue
            with suppress(OSError):  # another instance of this host was quicker
                if time.time() - path.stat().st_mtime > UNUSED_S:
                    path.unlink()

    def without_weights(self, zeros: ByteSource, sha256: str, layers: range) -> Path:
        """A slice as large and as slow as that with these layers, of a model whose weights are all zero."""
        path = self._folder / f"{sha256}-{layers.start}-{layers.stop}-zeros.gguf"
        self._write(zeros, sha256, layers, path)
        return path

    def _write(self, model: Path | ByteSource, sha256: str, layers: range, path: Path) -> None:
        self._make_folder()
        if isinstance(model, Path):
            with model_source(model) as source:
                write_slice(source, layers, path, source_sha256=sha256)
        else:
            write_slice(model, layers, path, source_sha256=sha256)

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelUnusable(f"the folder of slices {self._folder}: {error.strerror}") from error
