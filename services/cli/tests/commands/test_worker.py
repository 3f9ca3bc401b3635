"""`choir worker` against a live mesh, with a real OpenAI-compatible server and with much that is wrong."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from infra.broker.local_cluster import free_port
from infra.demo_models.family import FOLDER
from schemas.errors import WorkerFailed
from schemas.nodes.workers import Worker, WorkerState, WorkerStatus
from services.agent.tests.servers.llama_server import LlamaServer, llama_server
from services.cli.tests.conftest import Cli
from services.cli.workers.tables import workers_table

MODEL = "choir-llama"
USED_DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """llama_cpp.server with a demo model."""
    models = {MODEL: FOLDER / f"{MODEL}.gguf"}
    with llama_server(tmp_path_factory.mktemp("server"), models, n_ctx=256) as running:
        yield running


@pytest.fixture
def cleared(cli: Cli) -> Iterator[Cli]:
    """A command line whose workers are removed afterwards."""
    yield cli
    for status in workers(cli):
        cli("worker", "remove", status["worker"]["id"])


def workers(cli: Cli) -> list[dict[str, dict[str, object]]]:
    found: list[dict[str, dict[str, object]]] = json.loads(cli("worker", "list", "--json").out)["workers"]
    return found


def add(server: LlamaServer, *more: str) -> tuple[str, ...]:
    where = ("--type", "llama_cpp_python", "--host", "127.0.0.1", "--port", str(server.port))
    return ("worker", "add", *where, "--model", MODEL, *more)


def wait_until_used(cli: Cli) -> dict[str, dict[str, object]]:
    """The one worker, once an agent gives it work."""
    end_s = time.monotonic() + USED_DEADLINE_S
    while time.monotonic() < end_s:
        (status,) = workers(cli)
        if status.get("held_by") and "problem" not in status:
            return status
        time.sleep(0.1)
    pytest.fail(f"no agent uses the worker: {workers(cli)}")


def test_a_server_that_is_registered_can_be_asked_without_a_restart(
    cleared: Cli, server: LlamaServer
) -> None:
    """The model is new to the mesh: its queue is made, an agent takes the worker up, and it answers."""
    added = cleared(*add(server, "--id", "lab-1", "--slots", "3"))
    assert added.code == 0, added.err
    assert "lab-1: works:" in added.out and "first token after" in added.out
    assert f"registered lab-1: 3 slots of {MODEL} at {server.url}" in added.out
    status = wait_until_used(cleared)
    assert status["state"]["circuit"] == "closed"
    asked = cleared("ask", "What is the capital of Kenya?", "--model", MODEL, "--timeout", "30")
    assert (asked.code, asked.out.strip()) == (0, "Nairobi")
    shown = cleared("worker", "list").out
    assert "lab-1" in shown and "works" in shown
    assert "lab-1" in cleared("models").out


def test_a_worker_is_tried_out_cordoned_and_removed(cleared: Cli, server: LlamaServer) -> None:
    assert cleared(*add(server, "--id", "lab-2")).code == 0
    tried = cleared("worker", "test", "lab-2", "--json")
    (trial,) = json.loads(tried.out)["trials"]
    assert tried.code == 0
    assert trial["reachable"] and trial["model_there"] and trial["generated_tokens"] >= 1
    assert 0 < trial["first_token_ms"] <= trial["total_ms"]
    assert cleared("worker", "cordon", "lab-2").out == "lab-2 gets nothing new\n"
    assert "cordoned" in cleared("worker", "list").out
    (again,) = json.loads(cleared("worker", "uncordon", "lab-2", "--json").out)["workers"]
    assert (again["worker"]["id"], again["worker"]["cordoned"]) == ("lab-2", False)
    assert cleared("worker", "remove", "lab-2").out == "lab-2 is removed\n"
    assert workers(cleared) == []
    assert "choir worker add" in cleared("worker", "list").out


def test_what_cannot_be_registered_is_said_in_one_line(cleared: Cli, server: LlamaServer) -> None:
    nobody = str(free_port())
    here = ("--type", "lm_studio", "--host", "127.0.0.1", "--port")
    for arguments, words in (
        (("worker", "add", *here, nobody, "--model", "m"), f"nobody answers at http://127.0.0.1:{nobody}"),
        (("worker", "add", *here, nobody, "--model", "m"), "--no-test does it anyway"),
        (("worker", "add", *here, "70000", "--model", "m"), "port: "),
        (("worker", "add", *here, nobody, "--model", "m", "--id", "no good"), "id: "),
        (
            ("worker", "add", "--type", "opnai", "--host", "h", "--model", "m"),
            "type: 'opnai' is none of ollama, lm_studio, exo, llama_server, llama_cpp_python, vllm, openai; "
            "did you mean openai?",
        ),
        (
            ("worker", "add", "--type", "openai", "--host", "127.0.0.1", "--model", "m"),
            "https://127.0.0.1:443",
        ),
        (
            ("worker", "add", *here, str(server.port), "--model", "gpt-9"),
            f"has no model gpt-9; it has: {MODEL}",
        ),
        (("worker", "add", *here, nobody, "--model", "m", "--weight", "99", "--no-test"), "weight: "),
        (("worker", "remove", "nobody"), "there is no worker 'nobody'; known: none"),
        (("worker", "test", "nobody"), "there is no worker 'nobody'"),
        (("worker", "cordon", "no good"), "id: "),
    ):
        outcome = cleared(*arguments)
        assert outcome.code in (1, 2), arguments
        assert words in outcome.err, (arguments, outcome.err)
        assert outcome.err.count("\n") == 1, outcome.err
    assert workers(cleared) == []


def test_an_id_is_given_once(cleared: Cli, server: LlamaServer) -> None:
    assert cleared(*add(server, "--id", "one", "--no-test")).code == 0
    again = cleared(*add(server, "--id", "one", "--no-test"))
    assert again.code == 2
    assert "there is a worker 'one' already: --replace" in again.err
    assert cleared(*add(server, "--id", "one", "--no-test", "--slots", "2", "--replace")).code == 0
    assert workers(cleared)[0]["worker"]["slots"] == 2


def test_a_known_id_is_refused_before_the_server_is_tried(cleared: Cli, server: LlamaServer) -> None:
    assert cleared(*add(server, "--id", "one", "--no-test")).code == 0
    nobody = ("--type", "lm_studio", "--host", "127.0.0.1", "--port", str(free_port()), "--model", "m")
    again = cleared("worker", "add", *nobody, "--id", "one")
    assert (again.code, again.out) == (2, "")
    assert "--replace" in again.err and "nobody answers" not in again.err


def test_what_was_wrong_with_a_worker_that_works_again_has_a_time() -> None:
    worker = Worker(id="a", type="exo", host="h", port=1, model="m")
    error = WorkerFailed("it broke off").body()
    state = WorkerState(
        id="a", type="exo", url=worker.url, last_error=error, last_error_at_s=time.time() - 600
    )
    out = Console(width=200, file=io.StringIO())
    out.print(workers_table([WorkerStatus(worker=worker, held_by="agent", state=state)]))
    assert isinstance(out.file, io.StringIO)
    assert "10 min ago: it broke off" in out.file.getvalue()


def test_an_old_workers_json_is_imported_and_what_is_wrong_in_it_named(cleared: Cli, tmp_path: Path) -> None:
    good = {"type": "lm_studio", "host": "mac-01.local", "port": 1234, "model": "qwen2.5-7b-instruct"}
    entries = [
        good | {"id": "mac-01", "max_concurrent_requests": 3},
        good | {"type": "exo", "host": "mac-02.local", "port": 52415},
        good | {"id": "mac-01"},
        good | {"id": "mac-03", "port": "not a port"},
        good | {"id": "mac-04", "type": "abacus"},
        {"id": "mac-05", "type": "ollama"},
        "mac-06",
    ]
    (file := tmp_path / "workers.json").write_text(json.dumps({"workers": entries}))
    outcome = cleared("worker", "import", str(file))
    assert outcome.code == 1
    assert outcome.out.splitlines() == [
        "registered mac-01: 3 slots of qwen2.5-7b-instruct at http://mac-01.local:1234",
        "registered exo-mac-02.local-52415: 1 slot of qwen2.5-7b-instruct at http://mac-02.local:52415",
    ]
    complaints = outcome.err.splitlines()
    assert len(complaints) == 5
    for complaint, words in zip(
        complaints,
        (
            "worker 3: id: 'mac-01' is there twice",
            "worker 4: port",
            "worker 5: type",
            "worker 6: host",
            "worker 7",
        ),
        strict=True,
    ):
        assert words in complaint
    assert {status["worker"]["id"] for status in workers(cleared)} == {"mac-01", "exo-mac-02.local-52415"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"workers": [', "line 1, column 14"),
        ('{"machines": []}', "it has no list of workers"),
        ("[]", "it has no list of workers"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(
    content: str | None, complaint: str, cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "workers.json"
    if content is not None:
        file.write_text(content)
    outcome = cli("worker", "import", str(file))
    assert (outcome.code, outcome.out) == (2, "")
    assert complaint in outcome.err and outcome.err.count("\n") == 1


def test_validate_looks_at_servers_in_the_file(offline_cli: Cli, server: LlamaServer, tmp_path: Path) -> None:
    (tmp_path / "choir.toml").write_text(
        "[broker]\nport = 0\n"
        + "".join(
            f'[[agents]]\nname = "{name}"\nbackend = "openai"\nmodels = [{{ name = "{MODEL}", server = '
            f'{{ type = "llama_cpp_python", url = "http://127.0.0.1:{port}" }} }}]\n'
            for name, port in (("there", server.port), ("gone", free_port()))
        )
    )
    outcome = offline_cli("validate", "--json")
    findings = [f for f in json.loads(outcome.out)["findings"] if f["what"] == f"server of {MODEL}"]
    assert outcome.code == 1
    assert [finding["state"] for finding in findings] == ["ok", "wrong"]
    assert "nobody answers at" in findings[1]["found"]


def test_validate_looks_at_workers_that_are_registered(
    cleared: Cli, live_mesh: str, server: LlamaServer, tmp_path: Path
) -> None:
    assert cleared(*add(server, "--id", "lab-3", "--no-test")).code == 0
    gone = ("--type", "exo", "--host", "127.0.0.1", "--port", str(free_port()), "--model", "m")
    assert cleared("worker", "add", *gone, "--id", "gone", "--no-test").code == 0
    (tmp_path / "choir.toml").write_text(f'[broker]\nembedded = false\n[mesh]\nurl = "{live_mesh}"\n')
    found = {f["what"]: f for f in json.loads(cleared("validate", "--json").out)["findings"]}
    assert found["worker gone"]["state"] == "wrong"
    assert "choir worker remove gone" in found["worker gone"]["to_do"]
    assert found["worker lab-3"]["state"] in ("ok", "warning")
