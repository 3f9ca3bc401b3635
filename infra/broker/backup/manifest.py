"""The manifest of a backup: what is in it, with sizes and checksums. It is written last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.demo_models.checksums import sha256_of
from schemas.broker import catalog
from schemas.errors import ConfigurationError

FILE = "manifest.json"
VERSION = 1
"""Higher by one with each change of what a backup is."""
PRIVATE = 0o600
"""Prompts and answers are in it."""


class Entry(BaseModel):
    """One file of a backup: where it is in its folder, how long, and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str
    size_bytes: int
    sha256: str


class StreamEntry(Entry):
    """The copy of a stream, with its configuration, and its state as the broker says both."""

    name: str
    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def last_sequence(self) -> int:
        """The number of the message stored last."""
        return int(self.state["last_seq"])


class Manifest(BaseModel):
    """All of a backup. `database` is the event database, None if this host keeps none."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = VERSION
    catalog_version: int = catalog.VERSION
    made_at: str
    streams: tuple[StreamEntry, ...]
    database: Entry | None = None
    parquet: tuple[Entry, ...] = ()

    @property
    def files(self) -> tuple[Entry, ...]:
        """Every file that has to be there."""
        return (*self.streams, *((self.database,) if self.database else ()), *self.parquet)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Makes a backup complete."""
    new = folder / f"{FILE}.new"
    new.touch(PRIVATE)
    with new.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / FILE)


def read_manifest(folder: Path) -> Manifest:
    """What a backup says of itself. ConfigurationError if it is none, not complete, or of a newer Choir."""
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}: name the one that `choir backup` has written")
    if not (folder / FILE).is_file():
        raise ConfigurationError(
            f"{folder} is no complete backup: it has no {FILE}, which is written last. A backup that was cut "
            "off cannot be restored; make another"
        )
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        manifest = Manifest.model_validate_json(text)
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{folder / FILE} cannot be read: {str(error).splitlines()[0]}") from error
    if manifest.version > VERSION or manifest.catalog_version > catalog.VERSION:
        raise ConfigurationError(
            f"{folder} was made by a newer Choir (backup {manifest.version}, catalog "
            f"{manifest.catalog_version}; this one knows {VERSION} and {catalog.VERSION}): update this one"
        )
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Reads every file of a backup; ConfigurationError names one that is missing or was changed."""
    for entry in manifest.files:
        path = folder / entry.file
        if not path.is_file():
            raise ConfigurationError(f"{path} is missing: this backup cannot be restored")
        if path.stat().st_size != entry.size_bytes or sha256_of(path) != entry.sha256:
            raise ConfigurationError(f"{path} is damaged: it is not what was written into the backup")


def entry_of(folder: Path, path: Path) -> Entry:
    """What the manifest says of a file in the folder of a backup."""
    return Entry(
        file=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=sha256_of(path)
    )
