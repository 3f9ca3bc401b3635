"""`choir restore`: makes the store of this host's broker, and the event database, of a backup.

The mesh must not run, and nothing is overwritten. All is made beside its place and moved there when it is
whole, so whoever kills this in the middle runs it again.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from infra.broker.backup.into_cluster import broker_of_cluster, restore_streams
from infra.broker.backup.manifest import Manifest, check_files, read_manifest
from infra.broker.backup.stream_copy import differs, make_stream
from infra.broker.broker import Broker
from infra.demo_models.checksums import sha256_of
from infra.host.operator_connection import connect_operator
from infra.host.state import Claim
from infra.members.brokers import settings_of_broker_host, shared_by_brokers
from infra.settings import HostSettings
from schemas.errors import ConfigurationError, InternalError
from services.chassis.settings import MeshSection
from services.metrics.store.database import FILE_NAME

STORE = "store"
HALF = ".restoring"
"""What is made beside its place. It is nobody else's: a half one that was left is begun anew."""


async def restore(settings: HostSettings, state: Path, folder: Path) -> Manifest:
    """Puts a backup where the next `choir up` takes it up.

    Raises ConfigurationError for what is no backup, for a mesh that runs or has something already, and for a
    disk that is full.
    """
    manifest = read_manifest(folder)
    if not settings.broker.embedded:
        raise ConfigurationError(
            "a backup is restored into the broker of this host, and broker.embedded is false: "
            "run `choir restore` on the host of the broker"
        )
    claim, shared = Claim(state), shared_by_brokers(state)
    settings = settings_of_broker_host(settings, shared)
    try:
        store, metrics = settings.store_dir(state), settings.metrics_folder(state)
        _check_free(store, metrics, manifest)
        check_files(folder, manifest)
        with _full_disk_named(store):
            if settings.broker.cluster:
                async with broker_of_cluster(settings, shared, state) as client:
                    await restore_streams(client, manifest, folder, settings.broker.replicas)
                _put_database(metrics, folder, manifest)
                return manifest
            half = await _make_store(store, folder, manifest)
            _put_database(metrics, folder, manifest)
            (half / STORE).rename(store / STORE)
            shutil.rmtree(half)
    finally:
        claim.release()
    return manifest


@asynccontextmanager
async def beside(settings: HostSettings, state: Path) -> AsyncIterator[None]:
    """This host's broker of a cluster runs meanwhile, and nothing else: a backup is restored on another host.

    ConfigurationError if there is no cluster, or a mesh runs here.
    """
    claim, shared = Claim(state), shared_by_brokers(state)
    try:
        settings = settings_of_broker_host(settings, shared)
        if not settings.broker.cluster:
            raise ConfigurationError(
                "this host runs no broker of a cluster: `choir join` with the line of `choir invite broker` "
                "first"
            )
        async with broker_of_cluster(settings, shared, state):
            yield
    finally:
        claim.release()


def _check_free(store: Path, metrics: Path, manifest: Manifest) -> None:
    """ConfigurationError if something is there that a restore would overwrite."""
    if (store / STORE).exists():
        raise ConfigurationError(
            f"{store} holds the streams of a mesh already, and a restore overwrites nothing: move that "
            "folder away, or set another store_dir in section [broker]"
        )
    ours = metrics / FILE_NAME
    if manifest.database and ours.exists() and sha256_of(ours) != manifest.database.sha256:
        raise ConfigurationError(
            f"{ours} is an event database already, and a restore overwrites nothing: move it away, or set "
            "another folder in section [metrics]"
        )


async def _make_store(store: Path, folder: Path, manifest: Manifest) -> Path:
    half = store / HALF
    shutil.rmtree(half, ignore_errors=True)
    async with Broker(half) as broker:
        client = await connect_operator(broker.url, MeshSection(), _nothing)
        try:
            for entry in manifest.streams:
                made = await make_stream(client, entry, folder)
                if (difference := differs(entry, made)) is not None:
                    raise InternalError(f"stream {entry.name} is not what was backed up: {difference}")
        finally:
            await client.close()
    return half


def _put_database(metrics: Path, folder: Path, manifest: Manifest) -> None:
    """The event database and its Parquet files; those of an earlier attempt may be there already."""
    if manifest.database is None:
        return
    for entry in (*manifest.parquet, manifest.database):
        target = metrics / Path(entry.file).relative_to("database")
        half = target.with_name(target.name + HALF)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / entry.file, half)
        if sha256_of(half) != entry.sha256:
            raise InternalError(f"{target} is not what was backed up: the disk has changed it")
        half.replace(target)


@contextmanager
def _full_disk_named(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = ": make room there" if error.errno == errno.ENOSPC else ""
        raise ConfigurationError(f"the restore into {store} failed: {error.strerror}{full}") from error


async def _nothing() -> None:
    """A connection of a moment takes nothing up again."""
