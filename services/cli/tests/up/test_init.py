"""`choir init` finds what serves models on a host, and writes a choir.toml that can be run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.settings import load_host_settings
from schemas.nodes.workers import WorkerType
from services.cli.setup import probe
from services.cli.setup.probe import Found, Place, look_around, names_in
from services.cli.setup.proposal import proposal
from services.cli.tests.conftest import Cli

OLLAMA = {"models": [{"name": "llama3.2:3b"}, {"name": "nomic-embed-text:latest"}, {"name": "qwen2.5:7b"}]}
OPENAI = {"object": "list", "data": [{"id": "qwen2.5-7b"}, {"id": "text-embedding-nomic"}]}


@contextmanager
def serving(status: int, body: bytes) -> Iterator[int]:
    """A server on loopback that always answers the same; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_servers_are_found_with_their_models_of_text() -> None:
    with serving(200, json.dumps(OLLAMA).encode()) as one, serving(200, json.dumps(OPENAI).encode()) as two:
        ports: dict[WorkerType, int] = {"ollama": one, "lm_studio": two, "exo": 9}
        found = await look_around([Place("127.0.0.1")], ports)
    assert found == [
        Found("ollama", f"http://127.0.0.1:{one}", ("llama3.2:3b", "qwen2.5:7b")),
        Found("lm_studio", f"http://127.0.0.1:{two}", ("qwen2.5-7b",)),
    ]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "not a list of models"),
        (200, b"{}", "not a list of models"),
        (200, b'{"data": []}', "no model for text"),
        (500, b"", "status 500"),
    ],
)
async def test_what_is_no_server_of_models_is_said_so(status: int, body: bytes, said: str) -> None:
    with serving(status, body) as port:
        (found,) = await look_around([Place("127.0.0.1")], {"lm_studio": port})
    assert found.models == ()
    assert said in str(found.problem)


def test_a_list_of_models_is_read_with_care() -> None:
    assert names_in("openai", {"data": [{"id": "a"}, {"id": 3}, "b", {"id": "a"}, {"id": "two words"}]}) == (
        "a",
    )
    with pytest.raises(ValueError, match="no list"):
        names_in("ollama", [1])


def test_a_proposal_is_a_choir_toml(tmp_path: Path) -> None:
    found = [
        Found("ollama", "http://127.0.0.1:11434", ("llama3.2:3b", 'odd"name')),
        Found("exo", "http://127.0.0.1:52415", problem="status 500"),
        Found("lm_studio", "http://mac.local:1234", ("qwen2.5-7b",)),
    ]
    path = tmp_path / "choir.toml"
    path.write_text(proposal(found, [tmp_path / "my model.gguf"]))
    settings = load_host_settings(path)
    assert [agent.backend for agent in settings.agents] == ["ollama", "openai", "llama_cpp"]
    assert settings.models == ("llama3.2:3b", 'odd"name', "qwen2.5-7b", "my-model")


def test_without_a_server_the_demo_models_are_proposed(
    offline_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "DEFAULT_PORTS", dict.fromkeys(probe.LOOKED_FOR, 9))
    outcome = offline_cli("init")
    assert outcome.code == 0
    assert "no server of models answers here" in outcome.err
    assert "demo:choir-llama" in outcome.out
    assert not (tmp_path / "choir.toml").exists(), "nobody has said yes"

    assert offline_cli("init", "--yes").code == 0
    assert len(load_host_settings(tmp_path / "choir.toml").agents) == 1
    again = offline_cli("init", "--yes")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "--force" in again.err
    assert offline_cli("init", "--yes", "--force").code == 0


@pytest.mark.parametrize("arguments", [("--gguf", "gone.gguf"), ("--yes", "-o", "nowhere/choir.toml")])
def test_what_cannot_be_written_or_served_is_named(offline_cli: Cli, arguments: tuple[str, ...]) -> None:
    outcome = offline_cli("init", *arguments)
    assert outcome.code in (1, 2)
    assert outcome.err.splitlines()[-1].startswith("choir: ")
    assert arguments[-1] in outcome.err


def test_programs_get_one_document_and_nothing_is_written_unless_it_is_said(
    offline_cli: Cli, tmp_path: Path
) -> None:
    document = json.loads(offline_cli("init", "--json").out)
    assert isinstance(document["servers"], list) and document["written"] is None
    assert "[[agents]]" in document["config"]
    assert not (tmp_path / "choir.toml").exists()
    written = json.loads(offline_cli("init", "--json", "--yes").out)["written"]
    assert (tmp_path / written).read_text() == document["config"]


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("mac-01.local", Place("mac-01.local")),
        ("127.0.0.1:16301", Place("127.0.0.1", 16301)),
        ("::1", Place("::1")),
        ("[::1]:8080", Place("::1", 8080)),
    ],
)
def test_a_host_may_be_typed_with_a_port(typed: str, place: Place) -> None:
    assert Place.parse(typed) == place


def test_a_server_at_a_port_of_its_own_is_found(offline_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DEFAULT_PORTS", dict.fromkeys(probe.LOOKED_FOR, 9))
    with serving(200, json.dumps(OPENAI).encode()) as one, serving(200, json.dumps(OLLAMA).encode()) as two:
        outcome = offline_cli("init", "--host", f"127.0.0.1:{one}", "--host", f"127.0.0.1:{two}")
    assert outcome.code == 0, outcome.err
    assert f"openai at http://127.0.0.1:{one}: 1 model: qwen2.5-7b" in outcome.err
    assert f"ollama at http://127.0.0.1:{two}: 2 models" in outcome.err


def test_a_port_at_which_nobody_listens_is_said(offline_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DEFAULT_PORTS", dict.fromkeys(probe.LOOKED_FOR, 9))
    assert "127.0.0.1:9: nobody answers there" in offline_cli("init", "--host", "127.0.0.1:9").err


@pytest.mark.parametrize("host", ["", "a b", "http://127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:x", "h/v1"])
def test_what_is_no_host_is_refused_in_one_line(offline_cli: Cli, host: str) -> None:
    outcome = offline_cli("init", "--host", host)
    assert outcome.code == 2
    assert outcome.err.startswith("choir: invalid_request: host: ")
    assert outcome.err.count("\n") == 1
