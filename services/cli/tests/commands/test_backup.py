"""`choir backup` and `choir restore`, as an operator types them: a mesh goes on from its backup."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.broker.local_cluster import free_ports
from infra.host.children.processes import POLL_S
from infra.testing.choir_up import (
    TYPED_DEADLINE_S,
    choir_command,
    clean_environment,
    starting,
    typed,
    up,
    wait_until_up,
)
from infra.testing.switched_off import switched_off
from services.cli.tests.conftest import Cli

pytestmark = pytest.mark.long

CONFIG = """
[broker]
port = 0
[[agents]]
name = "one"
backend = "instant"
models = [{ name = "choir-one", reply = "Paris" }]
""" + switched_off("aggregator", "summarizer")
DEADLINE_S = 180.0
SEEN = "SELECT count(*) AS n FROM request_accepted WHERE request_id = 'before'"


def wait_for_one(state: Path) -> None:
    """Until the event database says that the request was accepted; it says so once."""
    end_s = time.monotonic() + DEADLINE_S
    while not (found := json.loads(typed(state, "sql", SEEN, "--json").stdout)["rows"][0][0]):
        assert time.monotonic() < end_s
        time.sleep(POLL_S)
    assert found == 1


@pytest.mark.soak
def test_a_mesh_that_speaks_tls_goes_on_from_its_backup_with_its_answers_and_its_history(
    tmp_path: Path,
) -> None:
    config, backup = tmp_path / "choir.toml", tmp_path / "backup"
    config.write_text(CONFIG)
    here, there = tmp_path / "here", tmp_path / "there"
    for state in (here, there):
        state.mkdir()
    with up(here, config, "--listen", "0.0.0.0") as url:
        # Given a mesh for other hosts too, that has answered a request, and whose event database knows it
        assert url.startswith("tls://")
        asked = typed(here, "ask", "Which city?", "-m", "choir-one", "--request-id", "before")
        assert asked.stdout == "Paris\n", asked.stderr
        wait_for_one(here)
        # When it is backed up while it runs
        made = typed(here, "backup", str(backup))
        assert made.returncode == 0, made.stderr
        assert "and the event database" in made.stdout
        # Then it is not restored over the mesh that runs
        refused = typed(here, "restore", str(backup), "--config", str(config))
        assert refused.returncode == 1 and "already running" in refused.stderr
    # When it is restored elsewhere and run there
    restored = typed(there, "restore", str(backup), "--config", str(config))
    assert restored.returncode == 0, restored.stderr
    with up(there, config, "--listen", "0.0.0.0"):
        # Then the answer is there, the request is in the history once, and the mesh answers
        assert "Paris" in typed(there, "fetch", "before").stdout
        wait_for_one(there)
        again = typed(there, "ask", "And now?", "-m", "choir-one")
        assert again.stdout == "Paris\n", again.stderr


OF_CLUSTER = """
[broker]
host = "0.0.0.0"
port = {port}
store_dir = "store-of-cluster"
cluster = {cluster}
[metrics]
folder = "metrics-of-cluster"
"""
BESIDE = """
[broker]
port = {port}
[[agents]]
name = "of-{port}"
backend = "instant"
models = [{{ name = "choir-{port}", reply = "Lyon" }}]
""" + switched_off("router", "aggregator", "summarizer", "metrics")


def hand_over(here: Path, there: Path, port: int) -> None:
    """What is typed on two hosts so that the second one is a broker of the first one's cluster."""
    command = choir_command("invite", "broker", "--port", str(port))
    with subprocess.Popen(
        command, env=clean_environment(here), cwd=here, stdout=subprocess.PIPE, text=True
    ) as inviting:
        assert inviting.stdout is not None
        line = inviting.stdout.readline().strip()
        joined = typed(there, "join", line)
        assert joined.returncode == 0, joined.stderr
        assert inviting.wait(TYPED_DEADLINE_S) == 0
    assert "nobody answers where the line says" in typed(there, "join", line).stderr


@pytest.mark.soak
def test_a_broker_that_was_alone_becomes_one_of_three_by_what_is_typed(tmp_path: Path) -> None:
    hosts, backup = [tmp_path / name for name in ("one", "two", "three")], tmp_path / "backup"
    *ports, port = free_ports(4)
    cluster = json.dumps([f"127.0.0.1:{each}" for each in ports])
    for host, each in zip(hosts, ports, strict=True):
        host.mkdir()
        (host / "choir.toml").write_text(BESIDE.format(port=each))
    one, *others = hosts
    alone = tmp_path / "alone.toml"
    alone.write_text(CONFIG)
    # Given a mesh with one broker, which has answered a request, and its backup
    with up(one, alone, "--listen", "0.0.0.0"):
        asked = typed(one, "ask", "Which city?", "-m", "choir-one", "--request-id", "before")
        assert asked.stdout == "Paris\n", asked.stderr
        made = typed(one, "backup", str(backup))
        assert made.returncode == 0, made.stderr
        assert typed(one, "down").returncode == 0
    # When its host says that there are to be three, and hands over to each of the others what they share
    (one / "choir.toml").write_text(
        OF_CLUSTER.format(port=ports[0], cluster=cluster) + CONFIG.partition("port = 0\n")[2]
    )
    for host in others:
        hand_over(one, host, port)
    # and the backup is restored there while the others stand by
    with ExitStack() as beside:
        for host in others:
            command = choir_command("restore", "--beside")
            process = beside.enter_context(
                subprocess.Popen(command, env=clean_environment(host), cwd=host, stderr=subprocess.DEVNULL)
            )
            beside.callback(process.send_signal, signal.SIGINT)
        restored = typed(one, "restore", str(backup))
        assert restored.returncode == 0, restored.stderr
    # Then the three are one mesh, which has the answer wherever it is asked for
    with ExitStack() as running:
        started = [running.enter_context(starting(host, host / "choir.toml")) for host in hosts]
        for host, process in zip(hosts, started, strict=True):
            assert wait_until_up(host, process).url.startswith("tls://")
        for host in hosts:
            found = typed(host, "fetch", "before")
            assert "Paris" in found.stdout, found.stderr
        again = typed(others[0], "ask", "And now?", "-m", "choir-one")
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
