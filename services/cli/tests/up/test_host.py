"""`choir up`, `choir down`, `choir validate` and `choir demo`, each on a host of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from infra.broker.local_cluster import free_ports
from infra.demo_models.family import FAMILY
from infra.testing.choir_up import (
    choir_command,
    clean_environment,
    quick_choir,
    starting_for_ever,
    wait_until_up,
)
from services.cli.demo.questions import QUESTIONS, STRATEGIES
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal
from services.cli.up.json_lines import as_json

pytestmark = pytest.mark.long

GRACE_S = 60.0
WITHOUT_SLEEPER = '\n[[agents]]\nname = "sleeper"'
WITHOUT_MEASURING = "[summarizer]\nreplicas = 0\n[metrics]\nenabled = false\n"


@pytest.fixture
def quartet_config(instant_config: Path, tmp_path: Path) -> Path:
    """A choir.toml of the four quick models."""
    path = tmp_path / "quartet.toml"
    path.write_text(WITHOUT_MEASURING + instant_config.read_text().partition(WITHOUT_SLEEPER)[0])
    return path


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    return not alive


def test_validate_counts_one_agent_as_one(offline_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "choir.toml").write_text(
        '[broker]\nport = 0\n[[agents]]\nname = "a"\nbackend = "instant"\n'
        'models = [{ name = "m", reply = "yes" }]\n'
    )
    (found,) = (
        f["found"]
        for f in json.loads(offline_cli("validate", "--json").out)["findings"]
        if f["what"] == "configuration"
    )
    assert found.endswith(": 1 agent, 1 model")


def test_up_is_found_by_the_other_commands_and_down_stops_it(quartet_config: Path, tmp_path: Path) -> None:
    # Given a mesh that `choir up` runs
    environment = clean_environment(tmp_path / "state")
    up = subprocess.Popen(
        choir_command("up", "--config", str(quartet_config), "--log-format", "json"),
        env=environment,
        stderr=subprocess.PIPE,
    )
    wait_until_up(tmp_path / "state", up)
    children = children_of(up.pid)

    def choir(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = choir_command(*arguments)
        return subprocess.run(
            command,
            env=environment,
            cwd=Path(__file__).parents[4],
            capture_output=True,
            text=True,
            check=False,
        )

    # Then the other commands find it without being told where it is
    assert choir("ask", "Capital of France?", "-m", "choir-one").stdout == "Paris\n"
    # When it is told to stop, then all of it stops, and there is nothing more to stop
    assert choir("down").returncode == 0
    _, log = up.communicate(timeout=GRACE_S)
    assert up.returncode == 0
    assert all_gone(children)
    assert choir("down").stdout == "no mesh runs on this host\n"
    # And every line of its log was one JSON document
    assert all(json.loads(line)["event"] for line in log.decode().splitlines())


def test_a_line_that_is_no_document_becomes_one() -> None:
    assert as_json("router-1", '{"event": "ready"}') == '{"event": "ready"}'
    document = json.loads(as_json("router-1", "Traceback (most recent call last):"))
    assert (document["event"], document["instance"]) == ("Traceback (most recent call last):", "router-1")


def test_a_line_in_the_name_of_another_service_is_no_entry_of_its() -> None:
    forged = '{"event": "all is well", "service": "router", "instance": "router-1"}'
    document = json.loads(as_json("agent-1", forged))
    assert (document["event"], document["instance"]) == (forged, "agent-1")
    assert json.loads(as_json("agent-1", "[" * 100_000))["instance"] == "agent-1"
    assert as_json("router-1", forged) == forged


@pytest.mark.soak
def test_the_demo_prints_one_document_whatever_else_runs_here(tmp_path: Path) -> None:
    # Given an environment that points to another mesh
    outcome = subprocess.run(
        quick_choir("demo", "--json"),
        env=clean_environment(tmp_path, TMPDIR=str(tmp_path), CHOIR_MESH__URL="nats://127.0.0.1:9"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # When the demo has run, then there is one document with every answer and every decision
    assert outcome.returncode == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert sorted(document["agents"]) == sorted(FAMILY)
    assert [question["prompt"] for question in document["questions"]] == [q.prompt for q in QUESTIONS]
    for question in document["questions"]:
        assert set(question["answers"]) == set(FAMILY)
        assert set(question["decisions"]) == set(STRATEGIES)
        assert all(set(decision) == {"answer", "share"} for decision in question["decisions"].values())
        assert question["latency_ms"] > 0
    # And what every model of the family knows
    said = {question["prompt"]: set(question["answers"].values()) for question in document["questions"]}
    assert said["What is 2+2? Return only the number."] == {"4"}
    assert said["What is the capital of France?"] == {"Paris"}
    # And nothing is left
    assert not list(tmp_path.glob("choir-demo-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_an_interrupted_demo_leaves_nothing_behind(
    quartet_config: Path, tmp_path: Path, number: signal.Signals
) -> None:
    environment = clean_environment(tmp_path, TMPDIR=str(tmp_path))
    demo = starting_for_ever(choir_command("demo", "--config", str(quartet_config)))
    with on_terminal(demo, environment, columns=80) as t:
        # Given a demo whose processes are running
        t.wait_for("starting")
        children: list[psutil.Process] = []
        while len(children) < 2:
            assert t.process.poll() is None, t.text
            children = children_of(t.process.pid)
            time.sleep(0.02)
        # When it is interrupted
        t.process.send_signal(number)
        # Then it ends as interrupted, without a traceback, and what it started has gone
        assert t.exit_code() == 130
        assert "Traceback" not in t.text
    assert all_gone(children)
    assert not list(tmp_path.glob("choir-demo-*"))


@pytest.mark.soak
def test_the_demo_on_a_terminal_shows_a_table_that_fits(quartet_config: Path, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, TMPDIR=str(tmp_path))
    with on_terminal(quick_choir("demo", "--config", str(quartet_config)), environment, columns=80) as t:
        assert t.exit_code() == 0
        table, _, advice = t.text.rpartition("question ")[2].partition("Try next")
        assert "closest to" in table
        assert "choir ask" in advice
        assert all(len(line) <= 80 for line in table.splitlines())


def test_a_demo_without_its_models_says_which_are_missing(
    offline_cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infra.host.demo_mesh.model_path", lambda name: tmp_path / f"{name}.gguf")
    outcome = offline_cli("demo")
    assert outcome.code == 1
    assert all(f"{name}.gguf" in outcome.err for name in FAMILY)


def test_validate_finds_nothing_wrong_where_nothing_is(offline_cli: Cli, quartet_config: Path) -> None:
    outcome = offline_cli("validate", "--config", str(quartet_config))
    assert outcome.code == 0, outcome.out
    assert "nats-server: v" in outcome.out
    assert "wrong" not in outcome.out


def test_validate_says_what_is_wrong_and_what_to_do(offline_cli: Cli, tmp_path: Path) -> None:
    # Given a taken port, a model that is missing, and one that is no model
    (tmp_path / "letter.gguf").write_text("Dear model, ...")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "choir.toml"
        config.write_text(f"""
[broker]
port = {port}
[[agents]]
name = "pair"
models = [{{ name = "gone", path = "gone.gguf" }}, {{ name = "letter", path = "letter.gguf" }}]
""")
        # When it is checked
        outcome = offline_cli("validate", "--json")
    # Then each is named
    findings = {finding["what"]: finding for finding in json.loads(outcome.out)["findings"]}
    assert outcome.code == 1
    for what in ("broker port", "model gone", "model letter"):
        assert findings[what]["state"] == "wrong"
        assert findings[what]["to_do"]
    assert str(port) in findings["broker port"]["found"]


def test_validate_names_the_wrong_key_of_a_configuration(offline_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "choir.toml").write_text("[broker]\nprot = 4222\n")
    outcome = offline_cli("validate")
    assert outcome.code == 1
    assert "broker.prot" in outcome.out


def test_a_configuration_that_cannot_be_read_fails_every_command(offline_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "choir.toml").write_text("[mesh\n")
    for command in (("nodes",), ("up",), ("ask", "Hi")):
        outcome = offline_cli(*command)
        assert outcome.code == 1
        assert outcome.err.startswith("choir: configuration: ")
        assert "choir.toml" in outcome.err


def test_environment_wins_over_file_and_file_over_the_running_mesh(
    offline_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.host.state import Claim, running_here
    from services.client.finding.mesh_url import find_mesh

    assert find_mesh().url == "nats://127.0.0.1:4222"
    claim = Claim(tmp_path / "state" / "choir")
    claim.publish(running_here("nats://127.0.0.1:1111"))
    assert find_mesh().url == "nats://127.0.0.1:1111"
    (tmp_path / "choir.toml").write_text('[mesh]\nurl = "nats://127.0.0.1:2222"\n')
    assert find_mesh().url == "nats://127.0.0.1:2222"
    monkeypatch.setenv("CHOIR_MESH__URL", "nats://127.0.0.1:3333")
    assert find_mesh().url == "nats://127.0.0.1:3333"
    assert find_mesh("nats://127.0.0.1:4444").url == "nats://127.0.0.1:4444"
    claim.release()
    assert os.environ["XDG_STATE_HOME"] == str(tmp_path / "state")


def test_the_line_of_a_broker_is_printed_joined_and_left(
    offline_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = offline_cli("invite", "broker")
    assert refused.code == 1 and "there is no cluster that a broker could join" in refused.err
    one, two, three, port = free_ports(4)
    cluster = json.dumps([f"127.0.0.1:{each}" for each in (one, two, three)])
    (tmp_path / "choir.toml").write_text(f'[broker]\nhost = "0.0.0.0"\nport = {one}\ncluster = {cluster}\n')
    with subprocess.Popen(
        choir_command("invite", "broker", "--port", str(port)),
        env=clean_environment(tmp_path / "state"), cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    ) as inviting:  # fmt: skip
        assert inviting.stdout is not None
        line = inviting.stdout.readline().strip()
        # On another host, which knows nothing of it
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        (tmp_path / "choir.toml").unlink()
        joined = offline_cli("join", line)
        assert joined.code == 0, joined.err
        assert f"this host runs one of the brokers 127.0.0.1:{one}" in joined.out
        assert inviting.wait(GRACE_S) == 0
    assert offline_cli("join", "--leave").out == "left\n"
    # Nor does it stand beside a restore any more
    beside = offline_cli("restore", "--beside")
    assert beside.code == 1 and "this host runs no broker of a cluster" in beside.err
