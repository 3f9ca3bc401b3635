"""What a host remembers of the mesh that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.host.state import Claim, running_here, stop_mesh
from schemas.errors import ConfigurationError
from services.client.finding.local_mesh import STATE_FILE, RunningMesh, running_mesh, state_folder


def test_other_commands_find_the_mesh_until_it_ends(tmp_path: Path) -> None:
    assert running_mesh(tmp_path) is None
    claim = Claim(tmp_path)
    claim.publish(running_here("nats://127.0.0.1:4222", config=tmp_path / "choir.toml"))
    mesh = running_mesh(tmp_path)
    assert mesh is not None
    assert (mesh.url, mesh.config) == ("nats://127.0.0.1:4222", tmp_path / "choir.toml")
    claim.release()
    claim.release()
    assert running_mesh(tmp_path) is None


def test_a_second_mesh_from_the_same_folder_is_told_where_the_first_is(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    with pytest.raises(ConfigurationError, match=r"already running(.*)just starting"):
        Claim(tmp_path)
    claim.publish(running_here("nats://127.0.0.1:4222"))
    with pytest.raises(ConfigurationError, match=r"already running(.*)nats://127.0.0.1:4222(.*)choir down"):
        Claim(tmp_path)
    claim.release()
    Claim(tmp_path).release()


def test_what_a_killed_mesh_left_behind_does_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = RunningMesh(url="nats://127.0.0.1:1", pid=gone.pid, process_started_at_s=1.0)
    (tmp_path / STATE_FILE).write_text(left.model_dump_json())
    assert running_mesh(tmp_path) is None
    Claim(tmp_path).release()


def test_a_process_that_got_the_same_id_later_is_not_the_mesh(tmp_path: Path) -> None:
    me = psutil.Process()
    mesh = RunningMesh(url="nats://x:1", pid=me.pid, process_started_at_s=me.create_time() - 100)
    assert not mesh.alive


def test_a_damaged_state_file_is_no_mesh(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("{")
    assert running_mesh(tmp_path) is None


async def test_stopping_waits_until_the_mesh_has_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mesh = RunningMesh(
        url="nats://x:1", pid=process.pid, process_started_at_s=psutil.Process(process.pid).create_time()
    )
    assert mesh.alive
    assert await stop_mesh(mesh, deadline_s=180)
    assert process.wait() == -15
    assert await stop_mesh(mesh)


def test_the_state_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "choir"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert state_folder() == Path("/home/somebody/.local/state/choir")
