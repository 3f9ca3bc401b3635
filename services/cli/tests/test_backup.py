"""`choir backup` and `choir restore`, as an operator types them: a mesh goes on from its backup."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.host.processes import POLL_S
from infra.testing.choir_up import choir_command, clean_environment, wait_until_up
from services.cli.tests.conftest import Cli

pytestmark = pytest.mark.long

CONFIG = """
[broker]
port = 0
[aggregator]
replicas = 0
[summarizer]
replicas = 0
[[agents]]
name = "one"
backend = "instant"
models = [{ name = "choir-one", reply = "Paris" }]
"""
STOP_DEADLINE_S = 40.0
DEADLINE_S = 60.0
SEEN = "SELECT count(*) AS n FROM request_accepted WHERE request_id = 'before'"


def choir(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        choir_command(*arguments), env=clean_environment(state), cwd=state,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@contextmanager
def up(state: Path, config: Path) -> Iterator[None]:
    """A mesh that `choir up` runs from a state folder of its own."""
    with (state / "err").open("wb") as log:
        process = subprocess.Popen(
            choir_command("up", "--config", str(config)), env=clean_environment(state), stderr=log
        )
    try:
        wait_until_up(state, process)
        yield
    finally:
        process.terminate()
        process.wait(STOP_DEADLINE_S)


def wait_for_one(state: Path) -> None:
    """Until the event database says that the request was accepted; it says so once."""
    end_s = time.monotonic() + DEADLINE_S
    while not (found := json.loads(choir(state, "sql", SEEN, "--json").stdout)["rows"][0][0]):
        assert time.monotonic() < end_s
        time.sleep(POLL_S)
    assert found == 1


@pytest.mark.soak
def test_a_mesh_goes_on_from_its_backup_with_its_answers_and_its_history(tmp_path: Path) -> None:
    config, backup = tmp_path / "choir.toml", tmp_path / "backup"
    config.write_text(CONFIG)
    here, there = tmp_path / "here", tmp_path / "there"
    for state in (here, there):
        state.mkdir()
    with up(here, config):
        # Given a mesh that has answered a request, and whose event database knows it
        asked = choir(here, "ask", "Which city?", "-m", "choir-one", "--request-id", "before")
        assert asked.stdout == "Paris\n", asked.stderr
        wait_for_one(here)
        # When it is backed up while it runs
        made = choir(here, "backup", str(backup))
        assert made.returncode == 0, made.stderr
        assert "and the event database" in made.stdout
        # Then it is not restored over the mesh that runs
        refused = choir(here, "restore", str(backup), "--config", str(config))
        assert refused.returncode == 1 and "already running" in refused.stderr
    # When it is restored elsewhere and run there
    restored = choir(there, "restore", str(backup), "--config", str(config))
    assert restored.returncode == 0, restored.stderr
    with up(there, config):
        # Then the answer is there, the request is in the history once, and the mesh answers
        assert "Paris" in choir(there, "fetch", "before").stdout
        wait_for_one(there)
        again = choir(there, "ask", "And now?", "-m", "choir-one")
        assert again.stdout == "Paris\n", again.stderr


def test_without_a_mesh_there_is_nothing_to_back_up(offline_cli: Cli, tmp_path: Path) -> None:
    outcome = offline_cli("backup", str(tmp_path / "backup"))
    assert outcome.code == 3
    assert "choir up" in outcome.err
    assert not (tmp_path / "backup").exists()


def test_a_folder_that_is_no_backup_is_called_that(offline_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    outcome = offline_cli("restore", str(tmp_path / "holiday"))
    assert outcome.code == 1
    assert "no complete backup" in outcome.err and outcome.err.count("\n") == 1
