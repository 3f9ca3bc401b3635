"""Backups of a mesh that runs, restored into one that does not: real brokers, a real event database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.backup import database_copy
from infra.broker.backup.backup import back_up
from infra.broker.backup.manifest import FILE, read_manifest
from infra.broker.backup.restore import HALF, restore
from infra.broker.broker import Broker
from infra.broker.provision import provision_at
from infra.host.children.processes import until
from infra.host.state import Claim
from infra.settings import HostSettings, load_host_settings
from infra.testing.plugin import connect, fill_disk
from schemas import subjects
from schemas.errors import ChoirError, ConfigurationError, NotReady
from services.client.finding.local_mesh import RunningMesh
from services.metrics.store.database import FILE_NAME

EVENTS = 3_000
DEADLINE_S = 180.0
WITHOUT_SERVICES = "[broker]\nport = 0\n"


@pytest.fixture
def settings(tmp_path: Path) -> HostSettings:
    config = tmp_path / "choir.toml"
    config.write_text(WITHOUT_SERVICES)
    return load_host_settings(config)


def state_of(folder: Path, name: str) -> Path:
    return folder / name / "choir"


class Mesh:
    """The broker and the event database of a host, without services."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.broker = Broker(state / "broker", prepare=lambda url: provision_at(url, ("alpha",)))
        self.database = state / "metrics" / FILE_NAME

    @property
    def running(self) -> RunningMesh:
        return RunningMesh(
            url=self.broker.url, pid=os.getpid(), process_started_at_s=psutil.Process().create_time()
        )

    async def fill(self) -> None:
        """Events, a result, a worker, and a database of which most is still in its log."""
        client = await connect(self.broker.url)
        js = client.jetstream()
        for _ in range(EVENTS // 100):
            await asyncio.gather(
                *(js.publish(subjects.event("agent", "x"), os.urandom(200)) for _ in range(100))
            )
        await js.publish(subjects.result("r1"), b"the giraffe")
        await (await js.key_value(subjects.WORKERS_BUCKET)).put("mac", b"a worker")
        await client.close()

    def open_database(self) -> duckdb.DuckDBPyConnection:
        """The database as the metrics service holds it: open."""
        self.database.parent.mkdir(parents=True)
        database = duckdb.connect(str(self.database))
        database.execute(
            "CREATE TABLE stream_position AS SELECT 41 AS sequence, 'long ago' AS stream_created"
        )
        database.execute("CHECKPOINT")
        database.execute("UPDATE stream_position SET sequence = 42")
        parquet = self.database.parent / "parquet" / "day"
        parquet.mkdir(parents=True)
        (parquet / "one.parquet").write_bytes(b"rows")
        return database


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(state_of(tmp_path, "here"))
    async with mesh.broker:
        await mesh.fill()
        yield mesh


async def test_what_was_in_a_mesh_is_in_the_one_that_is_made_of_its_backup(
    mesh: Mesh, settings: HostSettings, tmp_path: Path
) -> None:
    # Given a backup of a mesh that runs, whose database another holds open
    backup, elsewhere = tmp_path / "backup", state_of(tmp_path, "there")
    database = mesh.open_database()
    made = await back_up(mesh.running, settings, mesh.state, backup)
    database.close()
    # Then nobody else may read it, and nothing of its trial is left
    assert all(path.stat().st_mode & 0o077 == 0 for path in (backup, backup / FILE))
    assert sorted(path.name for path in backup.iterdir()) == ["database", FILE, "streams"]
    # When it is restored where no mesh has ever been
    assert await restore(settings, elsewhere, backup) == made == read_manifest(backup)
    # Then every message and every key is there, and the catalog finds nothing to object to
    assert not (elsewhere / "broker" / HALF).exists()
    async with Broker(elsewhere / "broker", prepare=lambda url: provision_at(url, ("alpha",))) as broker:
        client = await connect(broker.url)
        js = client.jetstream()
        assert (await js.stream_info(subjects.EVENTS_STREAM)).state.messages == EVENTS
        stored = await js.get_last_msg(subjects.RESULTS_STREAM, subjects.result("r1"), direct=True)
        assert stored.data == b"the giraffe"
        entry = await (await js.key_value(subjects.WORKERS_BUCKET)).get("mac")
        assert entry.value == b"a worker"
        await client.close()
    # And the database, with what was only in its log
    with duckdb.connect(str(elsewhere / "metrics" / FILE_NAME)) as restored:
        assert restored.execute("FROM stream_position").fetchall() == [(42, "")]
    assert (elsewhere / "metrics" / "parquet" / "day" / "one.parquet").read_bytes() == b"rows"


async def test_a_backup_and_a_restore_overwrite_nothing(
    mesh: Mesh, settings: HostSettings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    mesh.open_database().close()
    await back_up(mesh.running, settings, mesh.state, backup)
    before = (backup / FILE).read_bytes()
    with pytest.raises(ConfigurationError, match="is not empty"):
        await back_up(mesh.running, settings, mesh.state, backup)
    assert (backup / FILE).read_bytes() == before
    with pytest.raises(ConfigurationError, match="holds the streams of a mesh already"):
        await restore(settings, mesh.state, backup)
    other = state_of(tmp_path, "other")
    (other / "metrics").mkdir(parents=True)
    (other / "metrics" / FILE_NAME).write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match="is an event database already"):
        await restore(settings, other, backup)
    assert (other / "metrics" / FILE_NAME).read_bytes() == b"precious"
    claim = Claim(state_of(tmp_path, "running"))
    try:
        with pytest.raises(ConfigurationError, match="a mesh is already running"):
            await restore(settings, claim.folder, backup)
    finally:
        claim.release()


def _of_a_newer_choir(backup: Path) -> None:
    manifest: dict[str, Any] = json.loads((backup / FILE).read_text())
    (backup / FILE).write_text(json.dumps(manifest | {"version": 99}))


def _changed(backup: Path) -> None:
    path = backup / "streams" / "EVENTS.snapshot"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "there is no folder"),
    "cut off": (lambda backup: (backup / FILE).unlink(), "no complete backup"),
    "newer": (_of_a_newer_choir, "newer Choir"),
    "unreadable": (lambda backup: (backup / FILE).write_text("{"), "cannot be read"),
    "changed": (_changed, r"EVENTS\.snapshot is damaged"),
    "incomplete": (lambda backup: (backup / "streams" / "EVENTS.snapshot").unlink(), "is missing"),
}


async def test_what_is_no_whole_backup_is_refused_before_anything_is_written(
    mesh: Mesh, settings: HostSettings, tmp_path: Path
) -> None:
    whole = tmp_path / "backup"
    await back_up(mesh.running, settings, mesh.state, whole)
    for name, (spoil, said) in FAULTS.items():
        backup, elsewhere = tmp_path / name, state_of(tmp_path, f"for {name}")
        shutil.copytree(whole, backup)
        spoil(backup)
        with pytest.raises(ConfigurationError, match=said):
            await restore(settings, elsewhere, backup)
        assert not (elsewhere / "broker").exists()


async def test_a_full_disk_is_said_and_no_half_backup_is_left(
    mesh: Mesh, settings: HostSettings, disk: Path
) -> None:
    filler = fill_disk(disk)
    os.truncate(filler, filler.stat().st_size - 200_000)
    with pytest.raises(ConfigurationError, match="make room there"):
        await back_up(mesh.running, settings, mesh.state, disk / "backup")
    assert not (disk / "backup").exists()


CUT_OFF = """
import asyncio, os, sys
from pathlib import Path
from infra.broker.backup import {module} as subject
from infra.settings import load_host_settings
{program}
"""
BACKUP = """
from services.client.finding.local_mesh import RunningMesh
async def stand_still(copied, folder):
    print("half", flush=True)
    await asyncio.sleep(3600)
subject._try_out = stand_still
mesh = RunningMesh(url=sys.argv[3], pid=0, process_started_at_s=0)
settings = load_host_settings(Path(sys.argv[1]))
asyncio.run(subject.back_up(mesh, settings, Path(sys.argv[4]), Path(sys.argv[2])))
"""
RESTORE = """
def stand_still(*_):
    print("half", flush=True)
    import time
    time.sleep(3600)
subject._put_database = stand_still
asyncio.run(subject.restore(load_host_settings(Path(sys.argv[1])), Path(sys.argv[3]), Path(sys.argv[2])))
"""


def killed_half_way(module: str, program: str, *arguments: object) -> None:
    """Runs a backup or a restore until it is half done, and kills it."""
    process = subprocess.Popen(
        [sys.executable, "-c", CUT_OFF.format(module=module, program=program), *map(str, arguments)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


async def test_a_backup_that_is_killed_is_no_backup_and_a_restore_that_is_killed_is_done_again(
    mesh: Mesh, settings: HostSettings, tmp_path: Path
) -> None:
    config, backup, elsewhere = tmp_path / "choir.toml", tmp_path / "backup", state_of(tmp_path, "there")
    await asyncio.to_thread(killed_half_way, "backup", BACKUP, config, backup, mesh.broker.url, mesh.state)
    assert (backup / "streams").is_dir()
    with pytest.raises(ConfigurationError, match="no complete backup"):
        await restore(settings, elsewhere, backup)
    shutil.rmtree(backup)
    await back_up(mesh.running, settings, mesh.state, backup)

    await asyncio.to_thread(killed_half_way, "restore", RESTORE, config, backup, elsewhere)
    assert (elsewhere / "broker" / HALF).is_dir() and not (elsewhere / "broker" / "store").exists()
    await restore(settings, elsewhere, backup)
    async with Broker(elsewhere / "broker") as broker:
        client = await connect(broker.url)
        info = await client.jetstream().stream_info(subjects.EVENTS_STREAM)
        assert info.state.messages == EVENTS
        await client.close()


async def test_a_stream_that_is_written_meanwhile_is_copied_up_to_some_message(
    mesh: Mesh, settings: HostSettings, tmp_path: Path
) -> None:
    client: Client = await connect(mesh.broker.url)
    written, enough = 0, asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not enough.is_set():
            await client.jetstream().publish(subjects.event("agent", "x"), os.urandom(200))
            written += 1

    writing = asyncio.create_task(write())
    assert await until(lambda: written > 10, DEADLINE_S)
    made = await back_up(mesh.running, settings, mesh.state, tmp_path / "backup")
    enough.set()
    await writing
    await client.close()
    (events,) = (entry for entry in made.streams if entry.name == subjects.EVENTS_STREAM)
    assert EVENTS + 10 < events.last_sequence <= EVENTS + written + 1
    assert await restore(settings, state_of(tmp_path, "there"), tmp_path / "backup") == made


def test_a_database_whose_log_is_brought_into_it_meanwhile_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(tmp_path / "choir")
    database, copies = mesh.open_database(), []
    copy = shutil.copyfile

    def disturbed(source: Path, target: Path) -> None:
        copy(source, target)
        copies.append(source)
        if len(copies) == 1:
            database.execute("UPDATE stream_position SET sequence = 43")
            database.execute("CHECKPOINT")

    monkeypatch.setattr("infra.broker.backup.database_copy.shutil.copyfile", disturbed)
    copied = database_copy.copy_database(mesh.database, tmp_path)
    assert copies.count(mesh.database) == 2
    with duckdb.connect(str(copied)) as opened:
        assert opened.execute("FROM stream_position").fetchall() == [(43, "")]
    database.close()


def test_a_database_that_can_never_be_copied_is_an_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(tmp_path / "choir")
    mesh.open_database().close()
    monkeypatch.setattr(database_copy, "PAUSE_S", 0.0)
    monkeypatch.setattr(database_copy, "_opens", lambda _: False)
    with pytest.raises(NotReady, match="written so fast") as refused:
        database_copy.copy_database(mesh.database, tmp_path)
    assert isinstance(refused.value, ChoirError)
    assert not (tmp_path / FILE_NAME).exists()
