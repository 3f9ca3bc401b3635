"""`choir ask --summarize-with` and `choir matrix`, against a live mesh of models that answer at once."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.testing.choir_up import choir_command, connect_inside
from schemas import subjects
from schemas.errors import Cancelled
from schemas.events import ANY_EVENT, TaskCancelled, TaskPulled
from services.cli.tests.conftest import Cli
from services.client.client import Choir

pytestmark = pytest.mark.long

CHAIN = ("ask", "Capital of France?", "--model", "choir-four", "--summarize-with", "choir-one")
SHORT = ("matrix", "-g", "choir-one,choir-two", "-s", "choir-three", "-p", "Capital of France?", "-n", "2")
DEADLINE_S = 180.0


def test_ask_a_chain_prints_the_summary_and_nothing_else(cli: Cli) -> None:
    outcome = cli(*CHAIN)
    assert (outcome.code, outcome.out, outcome.err) == (0, "Paris\n", "")


def test_the_last_peer_of_a_chain_streams(cli: Cli) -> None:
    outcome = cli(*CHAIN, "--summarize-with", "choir-four", "--stream")
    assert (outcome.code, outcome.out) == (0, "It is Paris of course\n")


def test_verbose_shows_every_text_and_where_the_time_went(cli: Cli) -> None:
    lines = cli(*CHAIN, "--summarize-with", "choir-three", "-v").out.splitlines()
    assert lines[0] == "Lyon"
    for number, (peer, text) in enumerate(
        [("choir-four", "It is Paris of course"), ("choir-one", "Paris"), ("choir-three", "Lyon")], start=1
    ):
        assert lines[lines.index(f"{number} {peer}") + 1] == text
    heads = next(line for line in lines if line.startswith("peer"))
    for head in ("tokens/s", "load", "prompt eval", "eval", "total", "round trip", "latency"):
        assert head in heads
    (row,) = (line.split() for line in lines if line.startswith("choir-four "))
    assert row[1:4] == ["1", "3", "5"]
    assert row[-1] == "-", "there is nobody before the first"


def test_json_has_both_raw_outputs_and_all_durations(cli: Cli) -> None:
    result = json.loads(cli(*CHAIN, "--json").out)
    assert (result["topology"], result["text"]) == ("chain", "Paris")
    assert [answer["text"] for answer in result["answers"]] == ["It is Paris of course", "Paris"]
    assert result["steps"][0]["timings"]["eval_duration_ns"] > 40e6
    assert result["steps"][1]["network_latency_ns"] > 0


async def test_the_client_asks_a_chain_as_it_asks_a_model(live_mesh: str) -> None:
    async with Choir(live_mesh) as mesh:
        result = await mesh.ask("Capital of France?", model="choir-four", summarize_with=["choir-two"])
    assert (result.text, [step.model for step in result.steps]) == ("Paris.", ["choir-four", "choir-two"])


async def test_a_cancelled_chain_frees_the_slot_of_the_peer_at_work(live_mesh: str) -> None:
    connection = await connect_inside(live_mesh)
    told = await connection.subscribe(subjects.event("agent", "*"))
    await connection.flush()

    async def agent_tells(kind: type[TaskPulled | TaskCancelled]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            async for msg in told.messages:
                event = ANY_EVENT.validate_json(msg.data)
                if isinstance(event, kind) and (event.request_id, event.model) == (request_id, "choir-slow"):
                    return

    async with Choir(live_mesh) as mesh:
        request_id = await mesh.submit("Hi", model="choir-one", summarize_with=["choir-slow", "choir-one"])
        await agent_tells(TaskPulled)
        assert await mesh.cancel(request_id)
        with pytest.raises(Cancelled):
            await mesh.fetch(request_id, wait_s=DEADLINE_S)
    await agent_tells(TaskCancelled)
    await connection.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-m", "choir-one", "--summarize-with", "nobody"), 1, "unknown_model: summarize_with.0"),
        (("-m", "nobody", "--summarize-with", "choir-one"), 1, "unknown_model: model"),
        (("-m", "choir-one", "--summarize-with", ""), 2, "summarize_with.0"),
        (("--summarize-with", "choir-one"), 2, "summarize_with: a chain begins with one model"),
        (("--models", "a,b", "--summarize-with", "choir-one"), 2, "summarize_with"),
        (("-m", "choir-one", "--summary-prompt", "{text}"), 2, "summary_prompt"),
        (
            ("-m", "choir-one", "--summarize-with", "choir-two", "--summary-prompt", "Shorten {it}"),
            2,
            "no placeholder {it}",
        ),
        (
            ("-m", "choir-one", *("--summarize-with", "choir-two") * 8),
            2,
            "summarize_with",
        ),
    ],
)
def test_bad_chains_are_one_line_with_the_field(
    cli: Cli, arguments: tuple[str, ...], code: int, said: str
) -> None:
    outcome = cli("ask", "Hi", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("choir: ") and outcome.err.count("\n") == 1
    assert said in outcome.err


def test_too_long_a_prompt_for_the_first_peer_is_refused_at_the_door(cli: Cli) -> None:
    outcome = cli("ask", "word " * 9_000, *CHAIN[2:])
    assert outcome.code == 1
    assert "context_exceeded" in outcome.err


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "matrix.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_matrix_measures_every_pair_and_prints_a_table(cli: Cli, tmp_path: Path) -> None:
    outcome = cli(*SHORT, "-o", "out")
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "out")
    assert [(row["generator"], row["summarizer"], row["repetition"]) for row in rows] == [
        ("choir-one", "choir-three", "1"),
        ("choir-two", "choir-three", "1"),
        ("choir-one", "choir-three", "2"),
        ("choir-two", "choir-three", "2"),
    ]
    assert [row for row in rows if row["success"] != "True"] == []
    kept = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    results = [json.loads(line)["result"] for line in kept]
    # by the clocks of router and summarizer, which are not known well yet in a mesh that has just begun
    took_s = [max(0.0, result["completed_at_s"] - result["accepted_at_s"]) for result in results]
    assert [float(row["total_time_s"]) for row in rows] == took_s
    assert all(int(row["network_latency_ns"]) > 0 for row in rows)
    lines = outcome.out.splitlines()
    assert lines[0].split()[:4] == ["generator", "summarizer", "cells", "failed"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["choir-one", "choir-three", "2", "0"],
        ["choir-two", "choir-three", "2", "0"],
    ]
    assert "4 of 4" in outcome.err


def test_a_cell_that_fails_is_a_row_with_its_error_and_the_others_go_on(cli: Cli, tmp_path: Path) -> None:
    arguments = ("-g", "choir-short,choir-one", "-s", "choir-one", "-p", "word " * 200)
    outcome = cli("matrix", *arguments, "-o", "out", "--json")
    assert outcome.code == 1
    short, one = rows_of(tmp_path / "out")
    assert (short["success"], short["error_code"]) == ("False", "context_exceeded")
    assert (one["success"], one["error_code"]) == ("True", "")
    report = json.loads(outcome.out)
    assert [pair["failed"] for pair in report["pairs"]] == [1, 0]
    assert report["charts"] == ["total_time.png", "tokens_per_s.png"]


def test_a_cell_has_the_time_that_is_given_for_a_chain(cli: Cli, tmp_path: Path) -> None:
    outcome = cli(
        "matrix", "-g", "choir-slow", "-s", "choir-one", "-p", "Hi", "--timeout", "0.6", "-o", "out"
    )
    assert outcome.code == 1
    (slow,) = rows_of(tmp_path / "out")
    assert (slow["success"], slow["error_code"]) == ("False", "deadline_exceeded")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("-g", "nobody"), 1, "unknown_model: generators: no live agent serves 'nobody'"),
        (("-s", "choir-one,nobody"), 1, "summarizers: no live agent serves 'nobody'"),
        (("-g", ""), 2, "generators"),
        (("-g", "choir-one,choir-one"), 2, "generators: choir-one is named twice"),
        (("-p", " "), 2, "prompts.1"),
        (("--prompts", "missing.txt"), 2, "prompts: missing.txt: No such file or directory"),
        (("--prompts", "binary.txt"), 2, "prompts: binary.txt is not text in UTF-8"),
        (("-n", "0"), 2, "--repetitions"),
        (("--summary-prompt", "Shorten it"), 2, "summary_prompt"),
        (("-o", "binary.txt"), 2, "out: binary.txt is a file, not a folder"),
        (("-o", "other"), 2, "out: other/matrix.json does not describe a matrix"),
    ],
)
def test_a_bad_matrix_is_one_line_and_nothing_is_asked(
    cli: Cli, tmp_path: Path, change: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "matrix.json").write_text("{}")
    outcome = cli(*SHORT, "-o", "out", *change)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert said in outcome.err


def test_without_a_prompt_there_is_nothing_to_ask(cli: Cli) -> None:
    outcome = cli("matrix", "-g", "choir-one", "-s", "choir-two", "-o", "out")
    assert (outcome.code, "prompts: there is none" in outcome.err) == (2, True)


STANDS_STILL = """
import asyncio
from analysis.matrix.plan import ask
from analysis.matrix.runner import MatrixRunner
from services.cli.__main__ import main

measure = MatrixRunner._measure

async def stand_still(runner, cell):
    run = runner._folder.run
    if len(runner._folder.records) < 2:
        return await measure(runner, cell)
    await runner._mesh.submit_ask(ask(run.run_id, cell, run.options))
    print("asked", flush=True)
    await asyncio.Event().wait()

MatrixRunner._measure = stand_still
main()
"""
"""A matrix that has asked its third chain does not look at the answer: it is killed then, however late."""


def test_a_matrix_that_was_killed_goes_on_and_asks_nothing_twice(
    cli: Cli, live_mesh: str, tmp_path: Path
) -> None:
    arguments = ("matrix", "-g", "choir-four", "-s", "choir-four", "-p", "Hi", "-n", "8", "-o", "out")
    results = tmp_path / "out" / "results.jsonl"
    before = stored_results(live_mesh)
    with subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        process.send_signal(signal.SIGKILL)
    done = results.read_bytes()
    assert done.count(b"\n") == 2
    results.write_bytes(done + b'{"request_id": "matrix-')  # a line that the crash has cut off

    outcome = cli(*arguments)

    assert outcome.code == 0, outcome.err
    assert "of 8 are there already" in outcome.err
    rows = rows_of(tmp_path / "out")
    assert [int(row["repetition"]) for row in rows] == list(range(1, 9))
    assert results.read_bytes().startswith(done)
    assert stored_results(live_mesh) - before == 8


@pytest.mark.soak
def test_ctrl_c_says_how_far_a_matrix_has_come_and_how_to_go_on(live_mesh: str, tmp_path: Path) -> None:
    arguments = ("matrix", "-g", "choir-four", "-s", "choir-four", "-p", "Hi", "-n", "500", "-o", "out")
    environment = {"PYTHONPATH": str(Path(__file__).parents[4]), "CHOIR_MESH__URL": live_mesh}
    process = subprocess.Popen(
        choir_command(*arguments),
        cwd=tmp_path, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    results = tmp_path / "out" / "results.jsonl"
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s and not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    measured = results.read_bytes().count(b"\n")
    assert f"interrupted: {measured} of 500 chains are measured" in errors
    assert f"to go on: choir {' '.join(arguments)}" in errors


def stored_results(url: str) -> int:
    """How many requests the mesh has answered: the one in flight at the kill is one, if it kept its id."""

    async def look() -> int:
        async with Choir(url) as mesh:
            return (await mesh.status()).results

    return asyncio.run(look())


def test_another_matrix_in_the_same_folder_is_refused_with_what_differs(cli: Cli) -> None:
    assert cli(*SHORT, "-o", "out").code == 0
    outcome = cli(*SHORT[:-1], "3", "-o", "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert "other repetitions" in outcome.err
