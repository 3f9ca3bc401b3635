"""`choir backup`: copies the streams, the buckets and the event database of the mesh that runs on this host.

The mesh goes on. First the database is copied, then the streams: what was stored in between is in the stream
of events, from which metrics takes it up after a restore. What lives in memory (leases, tokens, activations)
is no part of a backup. The copy of the streams is tried out: a broker of its own makes streams of it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from nats.aio.client import Client
from nats.js.api import StorageType

from infra.broker.backup.database_copy import copy_database
from infra.broker.backup.manifest import Entry, Manifest, StreamEntry, entry_of, write_manifest
from infra.broker.backup.stream_copy import copy_stream, differs, make_stream, streams_of
from infra.broker.broker import Broker
from infra.host.credentials import Credentials
from infra.host.operator_connection import connect_operator, operator_of
from infra.settings import HostSettings
from schemas import subjects
from schemas.broker import catalog
from schemas.errors import ConfigurationError, InternalError
from services.chassis.settings import MeshSection
from services.client.finding.local_mesh import RunningMesh
from services.metrics.store.database import FILE_NAME, PARQUET_FOLDER

STREAMS, DATABASE, TRIAL = "streams", "database", "trial"
KEPT = frozenset(
    {spec.name for spec in catalog.STREAMS if spec.storage == "file" and spec.name != subjects.CANARY_STREAM}
    | {subjects.bucket_stream(spec.name) for spec in catalog.BUCKETS if spec.storage == "file"}
)
"""What a backup holds: all that outlives the broker, but for its own canary."""
ROOM = 2.5
"""The copy, and for a moment the streams that are made of it; with some to spare."""


async def back_up(mesh: RunningMesh, settings: HostSettings, state: Path, folder: Path) -> Manifest:
    """Writes a backup of `mesh` into `folder`, which must be new or empty.

    Raises ConfigurationError for a folder that cannot be used and a disk that is too small or full, and what
    the broker says. Nothing that this has written is left after an error.
    """
    section = operator_section(mesh, settings, state)
    client = await connect_operator(section.url, section, _nothing)
    try:
        with _new_folder(folder):
            return await _write(client, settings.metrics_folder(state), folder)
    finally:
        await client.close()


def operator_section(mesh: RunningMesh, settings: HostSettings, state: Path) -> MeshSection:
    """Who may copy streams: whoever has the key of this host's own broker, else as `[mesh]` says."""
    key = Credentials(state).operator
    if settings.broker.embedded and key.is_file():
        return operator_of(mesh, key)
    return settings.mesh.model_copy(update={"url": mesh.url})


async def _write(client: Client, metrics: Path, folder: Path) -> Manifest:
    found = [info for info in await streams_of(client) if info.config.name in KEPT]
    stored = [str(info.config.name) for info in found if info.config.storage == StorageType.FILE]
    if not stored:
        raise ConfigurationError("the broker has no streams of a mesh, so there is nothing to back up")
    _check_room(folder, sum(info.state.bytes for info in found), metrics)
    database = _copy_database(metrics, folder)
    parquet = tuple(_copy_parquet(metrics, folder))
    (folder / STREAMS).mkdir(mode=0o700)
    copied = [await copy_stream(client, name, folder / STREAMS) for name in stored]
    tried = await _try_out(copied, folder)
    manifest = Manifest(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        streams=tuple(_within(entry) for entry in tried),
        database=database,
        parquet=parquet,
    )
    write_manifest(folder, manifest)
    return manifest


async def _try_out(copied: list[StreamEntry], folder: Path) -> list[StreamEntry]:
    """The entries with the state of the streams that are made of the copies: what was stored meanwhile is in
    them or not."""
    trial = folder / TRIAL
    async with Broker(trial) as broker:
        client = await connect_operator(broker.url, MeshSection(), _nothing)
        try:
            tried = [await make_stream(client, entry, folder / STREAMS) for entry in copied]
        finally:
            await client.close()
    shutil.rmtree(trial)
    for entry, made in zip(copied, tried, strict=True):
        if made.last_sequence < entry.last_sequence:
            raise InternalError(f"the copy of stream {entry.name} is no use: {differs(entry, made)}")
    return tried


def _within(entry: StreamEntry) -> StreamEntry:
    return entry.model_copy(update={"file": f"{STREAMS}/{entry.file}"})


def _copy_database(metrics: Path, folder: Path) -> Entry | None:
    if not (metrics / FILE_NAME).is_file():
        return None
    (folder / DATABASE).mkdir(mode=0o700)
    return entry_of(folder, copy_database(metrics / FILE_NAME, folder / DATABASE))


def _copy_parquet(metrics: Path, folder: Path) -> Iterator[Entry]:
    """The Parquet files, which do not change once they are there; one that goes meanwhile was too old."""
    for source in sorted((metrics / PARQUET_FOLDER).rglob("*.parquet")):
        target = folder / DATABASE / source.relative_to(metrics)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            continue
        yield entry_of(folder, target)


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """A folder for a backup, which is gone again after an error."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is not empty: a backup overwrites nothing; name a new folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        full = ": make room there, or name a folder on another disk" if error.errno == errno.ENOSPC else ""
        raise ConfigurationError(f"the backup in {folder} failed: {error.strerror}{full}") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_room(folder: Path, stream_bytes: int, metrics: Path) -> None:
    files = (metrics / FILE_NAME, *(metrics / PARQUET_FOLDER).rglob("*.parquet"))
    wanted = ROOM * stream_bytes + sum(file.stat().st_size for file in files if file.is_file())
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise ConfigurationError(
            f"the disk of {folder} has {free // catalog.MIB} MiB free, and the backup needs "
            f"{wanted / catalog.MIB:.0f}: make room there, or name a folder on another disk"
        )


async def _nothing() -> None:
    """A connection of a moment takes nothing up again."""
