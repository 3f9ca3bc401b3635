"""The scripts of stock clients: all are there, and those whose client is installed here run."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtest.peers.stock.catalogue import CLIENTS, SCRIPTS, ollama_command
from loadtest.peers.stock.fuzz import fuzzed, main, read_events, summary
from loadtest.peers.stock.mesh import INSTANT, Shown, shown_mesh

HERE = ("ollama_python.py", "openai_python.py")
"""Of clients that Choir itself needs."""
QUICK = ("plain", "stream", "tools", "embeddings", "unknown", "hang-up", "limited")


def test_each_client_has_a_script_that_can_be_read() -> None:
    scripts = {client.script for client in CLIENTS.values()}
    for script in scripts:
        text = (SCRIPTS / script).read_text()
        if script.endswith(".py"):
            compile(text, script, "exec")
    others = {"harness.py", "harness.mjs", "schemathesis_hooks.py"}
    assert {path.name for path in SCRIPTS.iterdir() if path.is_file()} == scripts | others


@pytest.mark.soak
async def test_the_clients_that_are_installed_here_run_against_the_demo_models(tmp_path: Path) -> None:
    async with shown_mesh(tmp_path) as mesh:
        for script in HERE:
            told = await outcomes(mesh, script, QUICK)
            assert not [line for line in told if line["outcome"] != "ok"]


@pytest.mark.soak
@pytest.mark.skipif(ollama_command() is None, reason="needs `ollama`: see `just clients ollama`")
async def test_the_ollama_command_runs_against_the_demo_models(tmp_path: Path) -> None:
    async with shown_mesh(tmp_path) as mesh:
        for line in await outcomes(mesh, "ollama_command.py", (*QUICK, "manage", "hub")):
            assert line["outcome"] in ("ok", "not offered"), line


async def outcomes(mesh: Shown, script: str, scenarios: Sequence[str]) -> list[dict[str, str]]:
    """What a client's script tells of these scenarios, one line for each."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPTS / script), *scenarios),
        env={**os.environ, **mesh.environment, "CHOIR_OLLAMA": ollama_command() or ""},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await run.communicate()
    told: list[dict[str, str]] = [json.loads(line) for line in said.splitlines()]
    assert [line["scenario"] for line in told] == list(scenarios)
    return told


@pytest.mark.soak
@pytest.mark.skipif(
    shutil.which("schemathesis") is None, reason="needs schemathesis on the path: see `just fuzz-http`"
)
async def test_what_the_description_allows_and_what_it_does_not_is_answered(tmp_path: Path) -> None:
    program = shutil.which("schemathesis")
    assert program is not None
    async with shown_mesh(tmp_path, INSTANT) as mesh:
        description = f"{mesh.address}/openapi.json"
        found = await asyncio.to_thread(fuzzed, Path(program), description, mesh.address, 3, 60.0)
    assert found["exit_code"] == 0, found["said"]
    assert found["ended"] == "after its time"
    assert found["operations"] > 50


def test_what_was_sent_is_told_by_operation_and_what_failed_with_a_line_of_curl(tmp_path: Path) -> None:
    body = {"$base64": base64.b64encode(b'{"n": "\xff"}').decode()}
    request = {"method": "POST", "uri": "http://127.0.0.1:1/api/show?a=b&c", "headers": {"X-A": ["it's"]}}
    recorder = {
        "label": "POST /api/show",
        "interactions": {
            "one": {"request": {**request, "body": body}, "response": {"status_code": 500}},
            "two": {"request": {**request, "body": None}, "response": {"status_code": 404}},
            "three": {"request": {**request, "body": None}, "response": None},
        },
        "checks": {"one": [{"name": "not_a_server_error", "status": "failure"}]},
    }
    silent = {"phase": "examples", "recorder": {"label": "GET /api/tags"}}
    told = [
        {"LoadingFinished": {"statistic": {"operations": {"selected": 3}}}},
        {"ScenarioFinished": silent},
        {"ScenarioFinished": {"phase": "coverage", "recorder": recorder}},
    ]
    events = tmp_path / "events.ndjson"
    events.write_text("\n".join(json.dumps(each) for each in told))

    found = read_events(events)
    assert (found["described"], found["operations"], found["requests"]) == (3, 1, 3)
    assert found["by_operation"]["POST /api/show"] == {"404": 1, "500": 1, "none": 1}
    assert found["without_requests"] == ["GET /api/tags"]
    assert found["ended"] == "interrupted"
    assert (
        summary("gateway", found) == "gateway: 3 requests, 1 of 3 operations, ended interrupted, 2 failures"
    )
    wrong, silence = found["failures"]
    assert (wrong["what"], silence["status"]) == ("not_a_server_error", "none")
    assert wrong["curl"] == (
        f"echo {body['$base64']} | base64 -d | "
        """curl -i -X POST -H 'X-A: it'"'"'s' --data-binary @- 'http://127.0.0.1:1/api/show?a=b&c'"""
    )

    events.write_text(
        "\n".join(json.dumps(each) for each in (*told, {"EngineFinished": {"stop_reason": "max_time"}}))
    )
    assert read_events(events)["ended"] == "after its time"


def test_too_little_time_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seconds", "1"])
    assert "--seconds: at least 20" in capsys.readouterr().err
