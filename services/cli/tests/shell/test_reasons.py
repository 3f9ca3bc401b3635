"""Errors name the true reason: a wrong password, a missing service, another port, a file that cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.testing.choir_up import up
from services.cli.tests.conftest import Cli

pytestmark = pytest.mark.long

GUARDED = """
[broker]
port = 0
[mesh]
user = "choir"
password = "right"
[aggregator]
replicas = 0
[metrics]
enabled = false
[[agents]]
name = "one"
backend = "instant"
models = [{ name = "choir-one", reply = "Paris" }]
"""


@pytest.fixture(scope="module")
def guarded_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a mesh with a password, and without metrics and aggregator."""
    state = tmp_path_factory.mktemp("guarded")
    (config := state / "choir.toml").write_text(GUARDED)
    with up(state, config) as url:
        yield url


@pytest.fixture
def guarded(offline_cli: Cli, guarded_mesh: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A command line that knows the password, and does not wait long for a service that is not there."""
    monkeypatch.setenv("CHOIR_MESH__URL", guarded_mesh)
    monkeypatch.setenv("CHOIR_MESH__USER", "choir")
    monkeypatch.setenv("CHOIR_MESH__PASSWORD", "right")
    monkeypatch.setattr("services.client.client.CALL_PATIENCE_S", 1.0)
    return offline_cli


@pytest.mark.soak
def test_a_wrong_password_is_called_that(guarded: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOIR_MESH__PASSWORD", "wrong")
    outcome = guarded("status")
    assert outcome.code == 1
    assert "does not let user 'choir' in" in outcome.err
    assert "no broker answers" not in outcome.err and "choir up" not in outcome.err
    for variable in ("CHOIR_MESH__USER", "CHOIR_MESH__PASSWORD"):
        monkeypatch.delenv(variable)
    assert "does not let anybody without user and password in" in guarded("status").err


@pytest.mark.parametrize("command", [("sql", "SELECT 1"), ("report",), ("export", "--out", "here")])
def test_a_mesh_without_metrics_says_that_it_has_none(guarded: Cli, command: tuple[str, ...]) -> None:
    outcome = guarded(*command)
    assert (outcome.code, outcome.out) == (3, "")
    assert "this mesh runs no metrics service" in outcome.err
    assert "choir demo" not in outcome.err


def test_a_mesh_without_aggregator_says_that_it_has_none(guarded: Cli) -> None:
    outcome = guarded("scores")
    assert outcome.code == 3
    assert "this mesh runs no aggregator" in outcome.err


def test_a_host_that_there_is_not_is_said_to_be_none(
    offline_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHOIR_MESH__URL", "nats://nowhere.invalid:4222")
    assert "there is no host of this name" in offline_cli("status").err


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("[broker]\nport = 16222", "nats://127.0.0.1:16222"),
        ('[broker]\nhost = "0.0.0.0"\nport = 16223', "nats://127.0.0.1:16223"),
        ("[broker]\nport = 0", "nats://127.0.0.1:4222"),
        ('[broker]\nport = 16222\n[mesh]\nurl = "nats://127.0.0.1:16224"', "nats://127.0.0.1:16224"),
    ],
)
def test_the_broker_of_the_choir_toml_in_use_is_tried_and_named(
    offline_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, url: str
) -> None:
    (config := tmp_path / "mine.toml").write_text(section + "\n")
    monkeypatch.setenv("CHOIR_CONFIG", str(config))
    monkeypatch.setattr("services.client.connection.CONNECT_PATIENCE_S", 0.3)
    outcome = offline_cli("status")
    assert outcome.code == 3
    assert f"no broker answers at {url} " in outcome.err


def test_a_statement_that_is_wrong_is_shown_with_the_place(cli: Cli) -> None:
    lines = cli("sql", "selec 1").err.splitlines()
    assert lines[0].startswith("choir: query_failed: statement: ")
    (number,) = (number for number, line in enumerate(lines) if line.endswith("selec 1"))
    assert lines[number + 1].index("^") == lines[number].index("selec")
    error = json.loads(cli("sql", "selec 1", "--json").out)["error"]
    assert "\n" in error["message"]


def test_an_empty_statement_is_refused(cli: Cli) -> None:
    outcome = cli("sql", "")
    assert outcome.code == 2
    assert outcome.err.startswith("choir: invalid_request: statement: it is empty")


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "--out", "/proc/nope/r.html"),
        ("trace", "abc", "--png", "/proc/nope/t.png"),
        ("init", "--yes", "--output", "/proc/nope/choir.toml"),
        ("export", "--out", "here", "--since", "yesterday"),
        ("export", "--out", "here", "--since", "99999999999d"),
        ("ask", "Hi", "--request-id", ""),
        ("sql", "--file", "/nowhere.sql"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_the_mesh_is_looked_for(
    offline_cli: Cli, arguments: tuple[str, ...]
) -> None:
    outcome = offline_cli(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("choir: invalid_request: ")
    assert outcome.err.count("\n") == 1
    assert "Errno" not in outcome.err


def test_export_takes_times_as_report_does(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("export", "--out", str(tmp_path / "out"), "--since", "30m")
    assert outcome.code == 0, outcome.err
