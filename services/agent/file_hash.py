"""The SHA-256 of a model's file: answers say it, so that a receipt tells which file they came from."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from services.agent.settings import ModelSection
from services.chassis.logs import get_logger
from services.engine.model.gguf.header import GgufFault
from services.engine.model.gguf.split_files import sha256_of, size_of

AT_ONCE_BYTES = 64 * 1024**2
"""A file of up to so many bytes is read before the model is asked; a larger one while it answers already."""

log = get_logger("agent.file_hash")


class FileHash:
    """Of a split model it is that of all parts, one after another; `sha256` is None until all was read."""

    def __init__(self, model: ModelSection) -> None:
        self._model = model
        self.sha256: str | None = None

    async def read(self) -> None:
        """Returns when a small file was read; a large one is gone on with. A model may have none."""
        path = self._model.path
        if path is None:
            return
        try:
            size_bytes = await asyncio.to_thread(size_of, path)
        except (OSError, GgufFault) as error:
            self._unreadable(error)
            return
        if self._model.sha256 is not None:  # it was checked when the model was loaded
            self.sha256 = self._model.sha256
        elif size_bytes <= AT_ONCE_BYTES:
            await asyncio.to_thread(self._read, path)
        else:
            # Nobody waits for it at the end, as the event loop would for a thread of its own.
            threading.Thread(target=self._read, args=(path,), name="file hash", daemon=True).start()

    def _read(self, path: Path) -> None:
        try:
            self.sha256 = sha256_of(path)
        except (OSError, GgufFault) as error:
            self._unreadable(error)

    def _unreadable(self, error: Exception) -> None:
        log.warning("answers do not say the file's hash", model=self._model.name, why=str(error))
