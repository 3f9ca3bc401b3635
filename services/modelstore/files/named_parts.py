"""Names under which llama.cpp opens a model in several files: links to parts that lie elsewhere.

It tells the parts of a split model by their names. What was pulled, and what lies in the cache of Hugging
Face, is named by its content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from schemas.nodes.model_store import ModelFile, StoredModel
from services.chassis.logs import get_logger
from services.engine.model.gguf.header import GgufFault
from services.engine.model.gguf.split_files import PART_NAME, part_paths
from services.modelstore.files.known_files import KnownFile

UNKNOWN_STEM = "model"

log = get_logger("modelstore.names")


class NamedParts:
    """Folders of links below `folder`, one for each model in several files. What it does blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._without: set[Path] = set()

    def paths(self, model: StoredModel, known: Sequence[KnownFile]) -> tuple[Path, ...]:
        """Where the files of a model can be opened, in their order: where they lie, if their names belong
        together there, else links that are made for them.

        A disk that takes no links is said in the log, and the files' own places are returned: who opens them
        is told that they are parts without their names.
        """
        places = tuple(one.path for one in known)
        if _belong_together(places):
            return places
        folder = self._folder_of(model)
        links = tuple(folder / name for name in names_of(model.files))
        with self._lock:
            try:
                for link, one in zip(links, known, strict=True):
                    _lead(link, one)
            except (OSError, NotImplementedError) as error:
                if folder not in self._without:
                    self._without.add(folder)
                    log.error("parts cannot be given their names", model=model.name, why=str(error))
                return places
        return links

    def remove(self, model: StoredModel) -> None:
        """The links of a model are gone, if it has any."""
        with self._lock:
            shutil.rmtree(self._folder_of(model), ignore_errors=True)

    def _folder_of(self, model: StoredModel) -> Path:
        digests = "".join(file.sha256 for file in model.files)
        return self._folder / hashlib.sha256(digests.encode()).hexdigest()


def names_of(files: Sequence[ModelFile]) -> list[str]:
    """The names that llama.cpp expects of these parts: what the first one is called says how they begin. No
    name of a file holds a way out of its folder."""
    named = PART_NAME.fullmatch(files[0].name)
    stem = named["stem"] if named is not None else UNKNOWN_STEM
    return [f"{stem}-{number:05d}-of-{len(files):05d}.gguf" for number in range(1, len(files) + 1)]


def _belong_together(places: Sequence[Path]) -> bool:
    if len(places) == 1:
        return True
    try:
        return part_paths(places[0]) == list(places)
    except GgufFault:
        return False


def _lead(link: Path, known: KnownFile) -> None:
    """Makes a link to a file, unless it is there and leads to that file. A hard one where there are no
    others."""
    with contextlib.suppress(OSError):
        if known.is_still(link.stat()):
            return
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(".new")
    new.unlink(missing_ok=True)
    try:
        new.symlink_to(known.path.absolute())
    except (OSError, NotImplementedError):
        os.link(known.path, new)
    new.replace(link)
