"""The commands that ask and look, against a live mesh."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from infra.testing.choir_up import QUARTET, choir_command, clean_environment
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelineSummary
from schemas.replies import ModelQueue, ModelSummary, StatusReply
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal
from services.cli.views.tables.overview_tables import models_table, nodes_table, status_lines
from services.cli.views.tables.pipeline_tables import pipelines_table
from services.cli.views.terminal import counted_services

pytestmark = pytest.mark.long

ALL_FOUR = ",".join(QUARTET)


def test_ask_one_model_prints_its_answer_and_nothing_else(cli: Cli) -> None:
    outcome = cli("ask", "Capital of France?", "--model", "choir-one")
    assert (outcome.code, outcome.out, outcome.err) == (0, "Paris\n", "")


def test_ask_an_ensemble_shows_answers_and_decisions_side_by_side(cli: Cli) -> None:
    outcome = cli("ask", "Capital of France?", "--models", ALL_FOUR, "--strategy", "majority,weighted")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "Paris"
    assert any(line.split()[:2] == ["choir-three", "Lyon"] for line in lines)
    assert any(line.split() == ["strategy", "decision", "share", "margin"] for line in lines)
    for strategy in ("majority", "weighted"):
        assert any(line.split()[:2] == [strategy, "paris"] for line in lines)
    # An agent has one line; with --verbose also one with its votes.
    assert sum(line.startswith("choir-one") for line in lines) == 1
    told = cli("ask", "Hi", "--models", ALL_FOUR, "--strategy", "majority,weighted", "--verbose").out
    assert any(line.startswith("choir-one") and "paris (1.00)" in line for line in told.splitlines())


def test_ask_with_json_prints_one_document(cli: Cli) -> None:
    outcome = cli("ask", "Hi", "--models", ALL_FOUR, "--strategy", "majority", "--json")
    result = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (0, "")
    assert result["text"] == "Paris"
    assert {answer["agent"] for answer in result["answers"]} == set(QUARTET)


def test_ask_reads_the_prompt_from_standard_input(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    monkeypatch.setattr("sys.stdin", io.StringIO("Capital of France?\n"))
    assert cli("ask", "-", "-m", "choir-one").out == "Paris\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    outcome = cli("ask", "-", "-m", "choir-one")
    assert outcome.code == 2
    assert "prompt" in outcome.err


def test_a_closed_question_is_decided_by_the_text_of_an_option(cli: Cli) -> None:
    question = ("ask", "Capital of France?", "--choices", "Lyon, Paris", "--kind", "choice")
    outcome = cli(*question, "--models", ALL_FOUR, "--json")
    assert json.loads(outcome.out)["decisions"][0]["answer"] == "B"
    assert "B Paris" in cli(*question, "--models", ALL_FOUR).out


def test_ask_streams_a_text_as_it_comes(cli: Cli) -> None:
    outcome = cli("ask", "Hi", "-m", "choir-four", "--stream")
    assert outcome.out == "It is Paris of course\n"


def test_errors_are_one_line_that_says_what_and_what_to_do(cli: Cli) -> None:
    outcome = cli("ask", "Hi", "--model", "nobody")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("choir: unknown_model: model: ")
    assert "choir-one" in outcome.err
    assert "choir models" in outcome.err


def test_errors_with_json_are_a_document_too(cli: Cli) -> None:
    outcome = cli("ask", "Hi", "--model", "nobody", "--json")
    error = json.loads(outcome.out)["error"]
    assert (outcome.code, outcome.err) == (1, "")
    assert (error["code"], error["field"]) == ("unknown_model", "model")


def test_a_request_that_takes_too_long_fails_at_its_deadline(cli: Cli) -> None:
    outcome = cli("ask", "Hi", "-m", "choir-slow", "--timeout", "0.5")
    assert outcome.code == 1
    assert "deadline_exceeded" in outcome.err
    assert "--timeout" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask",),
        ("ask", "Hi", "--temperature", "9"),
        ("ask", "Hi", "--max-tokens", "0"),
        ("ask", "Hi", "--kind", "song"),
        ("ask", "Hi", "--colour", "red"),
        ("ask", " "),
        ("ask", "Hi", "--model", "a", "--strategy", "majority"),
        ("ask", "Hi", "--request-id", "a b"),
        ("sing",),
        ("up", "--config", "missing.toml"),
        ("chat", "--model", "a", "--strategy", "majority"),
    ],
)
def test_wrong_usage_ends_with_2_in_one_line(offline_cli: Cli, arguments: tuple[str, ...]) -> None:
    outcome = offline_cli(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("choir: invalid_request: ")
    assert outcome.err.count("\n") == 1
    as_json = offline_cli(*arguments, "--json")
    assert as_json.code == 2
    assert json.loads(as_json.out)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "arguments", [("ask", "Hi", "--strategy", "vote"), ("eval", "--strategies", "vote")], ids=lambda a: a[0]
)
def test_a_strategy_that_there_is_not_is_wrong_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    outcome = cli(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "unknown_strategy" in outcome.err and "majority, weighted" in outcome.err


@pytest.mark.parametrize("command", [("ask", "Hi"), ("nodes",)])
def test_without_a_mesh_the_exit_code_is_3_and_the_message_says_how_to_start_one(
    offline_cli: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CHOIR_MESH__URL", "nats://127.0.0.1:9")
    monkeypatch.setattr("services.client.connection.CONNECT_PATIENCE_S", 0.3)
    outcome = offline_cli(*command)
    assert (outcome.code, outcome.out) == (3, "")
    assert "`choir up` or `choir demo`" in outcome.err
    as_json = offline_cli(*command, "--json")
    assert as_json.code == 3
    assert json.loads(as_json.out)["error"]["code"] == "mesh_unreachable"


def test_ask_without_a_router_says_what_it_waits_for_and_ends_with_3(mesh_url: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        choir_command("ask", "Hi", "--model", "alpha", "--timeout", "2.5", "--json"),
        env=clean_environment(tmp_path, CHOIR_MESH__URL=mesh_url),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["error"]["code"] == "mesh_unreachable"
    assert ran.stderr.decode().startswith("no router answers yet; waiting until ")
    assert ran.stderr.count(b"\n") == 1


def test_nodes_models_and_status_for_people(cli: Cli) -> None:
    nodes = cli("nodes").out
    assert "quartet" in nodes
    assert "ready" in nodes
    models = cli("models").out
    assert models.splitlines()[0].split() == [
        "model", "agents", "slots", "busy", "context", "params", "size", "quant", "tokens/s", "file"
    ]  # fmt: skip
    assert all(model in models for model in QUARTET)
    assert "2 agents, 1 aggregator, 1 metrics, 1 router, 1 summarizer" in cli("status").out


def test_models_tell_their_file_size_and_quantisation() -> None:
    model = ModelSummary(
        name="phi", agents=("lab",), slots=4, busy=1, file="phi-q4_k_m.gguf", size_bytes=2 * 1024**3,
        quantisation="Q4_K_M",
    )  # fmt: skip
    for width, there in ((120, True), (80, False)):
        out = Console(width=width, file=io.StringIO())
        out.print(models_table([model], width))
        assert isinstance(out.file, io.StringIO)
        told = out.file.getvalue()
        assert "2.0 GiB" in told and "Q4_K_M" in told
        assert ("phi-q4_k_m.gguf" in told) is there
        assert len(told.splitlines()) == 2


def test_the_status_says_for_which_models_something_waits() -> None:
    queues = {"phi": ModelQueue(waiting=8, in_work=2), "qwen": ModelQueue(in_work=1)}
    status = StatusReply(
        services={}, models=("phi", "qwen"), slots=3, busy=3, queued=11, results=0, problems=(), queues=queues
    )
    assert "queued     11; phi: 8 wait, 2 in work" in [line.plain for line in status_lines(status)]


def test_names_stay_whole_on_a_terminal_of_80_columns() -> None:
    lease = NodeLease(
        instance="lab-ff35-aggregator-1", service="aggregator", host="lab", pid=1, version="1",
        started_at_s=1.0, seen_at_s=2.0, state="ready", slots=128, cpu_percent=0.0,
        memory_used_bytes=70 * 1024**2, load_average=8.7,
        host_memory_free_bytes=22 * 1024**3,
    )  # fmt: skip
    model = ModelSummary(
        name="choir-gemma", agents=("choir-gemma",), slots=4, busy=0, context_tokens=1024,
        parameters=2_000_000, size_bytes=2 * 1024**2, quantisation="Q8_0", tokens_per_s=145.0,
    )  # fmt: skip
    for name, shown in ((lease.instance, nodes_table([lease], 80)), (model.name, models_table([model], 80))):
        out = Console(width=80, file=io.StringIO())
        out.print(shown)
        assert isinstance(out.file, io.StringIO)
        lines = out.file.getvalue().splitlines()
        assert len(lines) == 2 and lines[1].startswith(f"{name} "), lines


def test_the_nodes_of_a_pipeline_stay_whole_on_a_terminal_of_80_columns() -> None:
    stages = tuple(
        {"instance": f"vm-choir-llama-{number}", "host": "vm", "first_layer": 2 * number,
         "end_layer": 2 * number + 2, "alive": True, "ready": True, "predicted_ms": 0.2, "step_ms": 13.37}
        for number in range(2)
    )  # fmt: skip
    pipeline = PipelineSummary.model_validate(
        {
            "model": "choir-llama",
            "epoch": 1,
            "state": "ready",
            "why": "asked for",
            "stages": stages,
            "slots": 4,
            "context_tokens": 1024,
            "dtype": "f16",
            "partition": "adaptive",
            "predicted_ms": 0.96,
        }
    )
    out = Console(width=80, file=io.StringIO())
    out.print(pipelines_table([pipeline]))
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert all(any(f" vm-choir-llama-{number} " in line for line in lines) for number in range(2)), lines


def test_services_are_counted_in_words() -> None:
    assert counted_services({"agent": 4, "metrics": 1, "shard_stage": 2, "router": 1}) == (
        "4 agents, 1 metrics, 1 router, 2 shard stages"
    )


def test_a_folder_without_a_name_is_refused(cli: Cli, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("x")
    for name, why in (("", "it must not be empty"), (str(file), "is a file, not a folder")):
        for command in (("export",), ("matrix", "-g", "choir-one", "-s", "choir-two", "-p", "x")):
            outcome = cli(*command, "--out", name)
            assert outcome.code == 2 and outcome.err.startswith("choir: invalid_request: out: "), outcome.err
            assert why in outcome.err and outcome.err.count("\n") == 1


def test_nodes_models_and_status_for_programs(cli: Cli) -> None:
    nodes = json.loads(cli("nodes", "--json").out)["nodes"]
    assert {node["service"] for node in nodes} == {"router", "aggregator", "summarizer", "metrics", "agent"}
    models = json.loads(cli("models", "--json").out)["models"]
    assert {model["name"] for model in models} >= {*QUARTET, "choir-slow", "choir-short", "choir-long"}
    assert json.loads(cli("status", "--json").out)["slots"] == 28


def test_what_a_foreign_broker_includes_is_printed_as_it_stands_or_in_a_document(offline_cli: Cli) -> None:
    """The keys of the first time are those of the second."""
    printed = offline_cli("broker", "config")
    assert (printed.code, printed.err) == (0, "") and "accounts" in printed.out
    assert json.loads(offline_cli("broker", "config", "--json").out)["configuration"] == printed.out


def test_help_and_version(offline_cli: Cli) -> None:
    for arguments in ((), ("--help",)):
        outcome = offline_cli(*arguments)
        assert outcome.code == 0
        for command in ("ask", "chat", "demo", "up", "down", "validate", "nodes", "models", "status"):
            assert command in outcome.out
        assert "Start here: `choir demo`, then `choir up`" in outcome.out
    worker = offline_cli("worker")
    assert worker.code == 0 and "cordon" in worker.out
    assert offline_cli("--version").out.startswith("choir ")


def test_a_reader_that_goes_away_is_no_crash(live_mesh: str) -> None:
    environment = {**os.environ, "CHOIR_MESH__URL": live_mesh}
    read, write = os.pipe()
    os.close(read)
    for arguments in (("nodes", "--json"), ("ask", "Hi", "-m", "choir-one")):
        outcome = subprocess.run(
            choir_command(*arguments), stdout=write, stderr=subprocess.PIPE, env=environment, check=False
        )
        assert (outcome.returncode, outcome.stderr) == (1, b"")
    os.close(write)


def busy(cli: Cli, model: str) -> bool:
    """Whether some slot of the model is busy, as its agent last said."""
    models = json.loads(cli("models", "--json").out)["models"]
    return any(found["busy"] for found in models if found["name"] == model)


def test_ctrl_c_ends_with_130_and_frees_the_agent(live_mesh: str, cli: Cli) -> None:
    environment = {**os.environ, "CHOIR_MESH__URL": live_mesh}
    with on_terminal(
        choir_command("ask", "Hi", "-m", "choir-slow", "--request-id", "stop-me"), environment
    ) as t:
        t.wait_for("asking")
        while not busy(cli, "choir-slow"):
            assert t.process.poll() is None
        t.type("\x03")
        assert t.exit_code() == 130
        assert "Traceback" not in t.text
    outcome = cli("ask", "Hi", "-m", "choir-slow", "--request-id", "stop-me")
    assert "cancelled" in outcome.err


def test_sigint_is_enough_without_a_terminal(live_mesh: str) -> None:
    environment = {**os.environ, "CHOIR_MESH__URL": live_mesh, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        choir_command("chat", "-m", "choir-one"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Hi\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"Paris\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert (process.returncode, errors) == (130, b"")
