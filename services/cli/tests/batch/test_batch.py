"""`choir batch` as a reviewer of literature uses it, and the same from Python."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from infra.testing.choir_up import QUARTET, connect_inside
from schemas import subjects
from schemas.errors import UnknownModel
from services.cli.tests.batch.test_batch_documents import write_pdf
from services.cli.tests.conftest import Cli
from services.client.client import Choir

DEADLINE_S = 180.0


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """Three PDF files, a note and a text that is no text."""
    folder = tmp_path / "papers"
    (folder / "old").mkdir(parents=True)
    for name in ("one", "two", "old/three"):
        write_pdf(folder / f"{name}.pdf", f"The paper called {name}.", "It has two pages.")
    (folder / "note.md").write_text("# A note\n\nWith {braces}.")
    (folder / "broken.txt").write_bytes(b"\x00\x01")
    return folder


def test_every_prompt_is_asked_of_every_document(cli: Cli, papers: Path, tmp_path: Path) -> None:
    outcome = cli(
        *("batch", "-i", str(papers), "--preset", "summary", "-p", "Who wrote {filename}?"),
        *("-m", "choir-one", "-m", "choir-two", "-m", "choir-three", "-m", "choir-four"),
        *(option for suffix in ("json", "csv", "md") for option in ("-o", f"results.{suffix}")),
    )
    assert outcome.code == 1, "one file cannot be read"
    assert "broken.txt: document_unreadable: the file is binary, not text (for 2 prompts)" in outcome.err
    assert "8 answered, 2 failed, 0 not done" in outcome.err
    assert "runs before" not in outcome.err

    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["files_processed"], results["total_tasks"]) == (5, 10)
    assert (results["successful"], results["failed"], results["success_rate"]) == (8, 2, 80.0)
    assert results["total_time_seconds"] > 0 < results["tasks_per_second"]
    entry = results["results"][-1]
    assert (entry["file"], entry["prompt"], entry["success"]) == ("two.pdf", "prompt-1", True)
    assert entry["prompt_template"].startswith("Who wrote {filename}?")
    assert entry["response"]["model"] in QUARTET
    assert entry["response"]["response"]
    assert entry["timings"]["total_s"] > 0
    assert {entry["response"]["model"] for entry in results["results"] if entry["success"]} == set(QUARTET)

    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["success"] for row in rows].count("True") == 8
    assert {row["error_code"] for row in rows} == {"", "document_unreadable"}
    report = (tmp_path / "results.md").read_text()
    assert "## old/three.pdf\n\n### summary\n" in report
    assert "- broken.txt, summary: document_unreadable" in report


def test_a_batch_that_is_run_again_asks_only_what_failed(cli: Cli, papers: Path, tmp_path: Path) -> None:
    command = ("batch", "-i", str(papers), "--preset", "summary", "-o", "r.json", "-m", "choir-one")
    assert cli(*command).code == 1
    before = (tmp_path / "r.json").read_text()
    (papers / "broken.txt").write_text("Now it is text.")
    outcome = cli(*command)
    assert outcome.code == 0
    assert "5 tasks, 4 of them done before" in outcome.err
    assert "with the runs before): r.json" in outcome.err
    after = json.loads((tmp_path / "r.json").read_text())
    answered = [entry for entry in json.loads(before)["results"] if entry["success"]]
    assert all(entry in after["results"] for entry in answered), "what was answered stays as it is"
    assert cli(*command).code == 0

    other = cli(*command, "--max-tokens", "9")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "--restart" in other.err
    assert "5 tasks\n" in cli(*command, "--max-tokens", "9", "--restart").err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("-i", "nowhere", "--preset", "summary", "-o", "r.json"), 2, "nowhere"),
        (("-i", ".", "--preset", "summary", "-o", "r.json", "--glob", "*.rtf"), 2, "*.rtf"),
        (("-i", ".", "--preset", "thorough", "-o", "r.json"), 2, "thorough"),
        (("-i", ".", "-p", "{author}", "-o", "r.json"), 2, "{author}"),
        (("-i", ".", "-o", "r.json"), 2, "--preset or --prompt"),
        (("-i", ".", "--preset", "summary", "-o", "r.xml"), 2, ".json, .csv, .md"),
        (("-i", ".", "--preset", "summary", "-o", "no/r.json"), 2, "no folder"),
        (("-i", ".", "--preset", "summary", "-o", "r.json", "-m", "nobody"), 1, "choir-one"),
        (("-i", ".", "--preset", "summary", "-o", "r.json", "--max-concurrent", "0"), 2, "max-concurrent"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "a.txt").write_text("x")
    outcome = cli("batch", *options)
    assert (outcome.code, outcome.out) == (code, "")
    complaint = outcome.err.splitlines()[-1] if code == 1 else outcome.err
    assert complaint.startswith("choir: ")
    assert said in outcome.err


def test_without_a_mesh_it_says_how_to_start_one(offline_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    outcome = offline_cli("batch", "-i", ".", "--preset", "summary", "-o", "r.json")
    assert outcome.code == 3
    assert "choir up" in outcome.err


def test_with_json_the_summary_is_one_document(cli: Cli, papers: Path) -> None:
    outcome = cli("batch", "-i", str(papers / "note.md"), "--preset", "summary", "-o", "r.json", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["successful"] == 1


def tasks_pulled(url: str, since: float) -> Counter[str]:
    """How often each request of a batch has been pulled by an agent."""

    async def count() -> Counter[str]:
        client = await connect_inside(url)
        pulled: Counter[str] = Counter()
        ended = asyncio.Event()

        async def note(msg: Msg) -> None:
            event = json.loads(msg.data)
            if event["at_s"] >= since and event["request_id"].startswith("batch-"):
                pulled[event["request_id"]] += 1
            if msg.metadata.num_pending == 0:
                ended.set()

        stream = client.jetstream()
        await stream.subscribe(subjects.event("agent", "task_pulled"), cb=note, ordered_consumer=True)
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
        await client.close()
        return pulled

    return asyncio.run(count())


def lines_with(path: Path, what: str) -> int:
    """How many lines of a file say something."""
    return sum(what in line for line in path.read_text().splitlines()) if path.exists() else 0


STANDS_STILL = """
import asyncio, sys, time
from services.cli.__main__ import main
from services.cli.batch.journal import BatchJournal

keep, most, done = BatchJournal.keep, int(sys.argv.pop(1)), []

def stand_still(journal, task, record):
    keep(journal, task, record)
    done.append(task)
    while len(done) == most and not any(each.cancelling() for each in asyncio.all_tasks()):
        time.sleep(0.01)

BatchJournal.keep = stand_still
main()
"""


def standing_still(*command: str, after: int) -> list[str]:
    """`choir`, whose batch stands still when so many tasks are done, until it is interrupted or killed.

    A fast one would be over before a busy machine comes to that.
    """
    return [sys.executable, "-c", STANDS_STILL, str(after), *command]


def test_a_batch_that_was_killed_goes_on_and_asks_nothing_twice(
    live_mesh: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(60):
        (tmp_path / "texts" / f"{number:02}.txt").write_text(f"Text {number}.")
    command = ("batch", "-i", "texts", "--preset", "summary", "-o", "r.json", "-m", "choir-four")
    started_s = time.time()
    process = subprocess.Popen(standing_still(*command, after=10), cwd=tmp_path)
    journal = tmp_path / ".r.json.journal"
    while lines_with(journal, '"done"') < 10:
        assert time.time() < started_s + DEADLINE_S
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)
    asked = lines_with(journal, '"asked"')
    assert 10 <= asked < 60, "the batch was killed on its way"

    outcome = cli(*command)
    assert outcome.code == 0
    assert "done before" in outcome.err
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [entry["success"] for entry in results] == [True] * 60
    assert {entry["attempt"] for entry in results} == {1}
    while len(pulled := tasks_pulled(live_mesh, started_s)) < 60:
        assert time.time() < started_s + DEADLINE_S, f"{len(pulled)} of 60 events"
        time.sleep(0.1)
    assert set(pulled.values()) == {1}


def test_a_batch_that_is_interrupted_keeps_what_it_has(live_mesh: str, tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_text(f"Text {number}, which is interrupted.")
    command = ("batch", "-i", ".", "--preset", "summary", "-o", "r.json", "-m", "choir-four")
    process = subprocess.Popen(
        standing_still(*command, after=5),
        cwd=tmp_path,
        env={**os.environ, "CHOIR_MESH__URL": live_mesh},
        stderr=subprocess.PIPE,
        text=True,
    )
    started_s = time.time()
    while lines_with(tmp_path / ".r.json.journal", '"done"') < 5:
        assert time.time() < started_s + DEADLINE_S
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    results = json.loads((tmp_path / "r.json").read_text())
    assert 5 <= results["successful"] < 40
    assert results["unfinished"] == 40 - results["successful"]
    assert "to go on: choir batch" in said


def test_a_document_that_does_not_fit_is_read_in_parts_and_the_answers_are_joined(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("\n\n".join("word " * 20 for _ in range(20)))
    (tmp_path / "dense.txt").write_text("a b c d e f g " * 20)
    (tmp_path / "short.txt").write_text("It fits.")
    outcome = cli(
        *("batch", "-i", ".", "--glob", "*.txt", "-p", "List {content}", "-m", "choir-short"),
        *("--max-tokens", "8", "-o", "r.json"),
    )
    assert outcome.code == 0, outcome.err
    results = {entry["file"]: entry for entry in json.loads((tmp_path / "r.json").read_text())["results"]}
    assert results["words.txt"]["parts"] > 4
    assert results["dense.txt"]["parts"] > 1, "the model said that it has more tokens than it looked"
    assert results["short.txt"]["parts"] == 1
    assert {entry["response"]["response"] for entry in results.values()} == {"one two three"}
    assert results["words.txt"]["timings"]["prompt_tokens"] > 400, "every word has been read"


def test_a_prompt_that_leaves_no_room_for_a_document_fails_with_a_way_out(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 200)
    outcome = cli(
        "batch", "-i", "a.txt", "-p", "List", "-m", "choir-short", "-o", "r.json", "--max-tokens", "130"
    )
    assert outcome.code == 1
    assert "a.txt: invalid_request: the context of choir-short has no room" in outcome.err


async def test_a_batch_from_python_is_five_lines(live_mesh: str) -> None:
    async with Choir(live_mesh) as mesh:
        prompts = (f"Question {number}" for number in range(20))
        done = [reply async for reply in mesh.batch(prompts, model="choir-two", max_concurrent=4)]
    assert sorted(reply.number for reply in done) == list(range(20))
    assert all(reply.result is not None and reply.result.text == "Paris." for reply in done)


async def test_a_batch_from_python_goes_on_after_an_error_and_repeats_nothing_under_its_key(
    live_mesh: str,
) -> None:
    async with Choir(live_mesh) as mesh:
        done = [reply async for reply in mesh.batch(["a", "b"], model="nobody", max_concurrent=2)]
        assert [type(reply.error) for reply in done] == [UnknownModel, UnknownModel]
        first = [reply async for reply in mesh.batch(["a", "b"], model="choir-one", key="review")]
        again = [reply async for reply in mesh.batch(["a", "b"], model="choir-one", key="review")]
    results = {reply.number: reply.result for reply in first}
    assert results == {reply.number: reply.result for reply in again}
