"""`choir sql` and `choir export`, against a live mesh whose metrics service stores what happens."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

from infra.testing.choir_up import choir_command, clean_environment
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal

DEADLINE_S = 180.0
ASKED = "sql-test-request"


@pytest.fixture
def asked(cli: Cli) -> Cli:
    """The command line, after one request whose task is a row."""
    assert cli("ask", "Capital of France?", "-m", "choir-one", "--request-id", ASKED).code == 0
    end_s = time.monotonic() + DEADLINE_S
    statement = f"SELECT count(*) FROM requests WHERE request_id = '{ASKED}' AND status = 'answered'"
    while json.loads(cli("sql", statement, "--json").out)["rows"] != [[1]]:
        assert time.monotonic() < end_s, "the request is not a row"
    return cli


def test_a_statement_gives_a_table_csv_or_json(asked: Cli) -> None:
    statement = f"SELECT model, finish_reason, total_ms > 0 AS timed FROM tasks WHERE request_id = '{ASKED}'"
    table = asked("sql", statement)
    assert (table.code, table.err) == (0, "")
    assert table.out.splitlines()[0].split() == ["model", "finish_reason", "timed"]
    assert table.out.splitlines()[1].split() == ["choir-one", "stop", "true"]
    assert table.out.splitlines()[2].startswith("1 row in ")
    assert (
        asked("sql", statement, "--format", "csv").out == "model,finish_reason,timed\nchoir-one,stop,True\n"
    )
    document = json.loads(asked("sql", statement, "--json").out)
    assert document["columns"][0] == {"name": "model", "type": "VARCHAR"}
    assert (document["rows"], document["truncated"]) == ([["choir-one", "stop", True]], False)


def test_a_query_that_comes_with_choir_is_asked_by_its_name_with_parameters(asked: Cli) -> None:
    rows = json.loads(asked("sql", "--file", "latency_by_model", "--json").out)["rows"]
    assert "choir-one" in [row[0] for row in rows]
    later = asked("sql", "-f", "latency_by_model", "-p", "since=2999-01-01", "--json")
    assert json.loads(later.out)["rows"] == []
    wrong = asked("sql", "-f", "latency_by_model", "-p", "sinse=1")
    assert wrong.code == 2 and "sinse" in wrong.err and "since" in wrong.err


def test_a_query_of_ones_own_is_read_from_a_file_or_standard_input(
    asked: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.sql"
    file.write_text("-- parameters: n (BIGINT = 2)\nSELECT $n + 1 AS sum")
    assert asked("sql", "--file", str(file), "--format", "csv").out == "sum\n3\n"
    assert asked("sql", "--file", str(file), "-p", "n=5", "--format", "csv").out == "sum\n6\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 4 AS four"))
    assert asked("sql", "-", "--format", "csv").out == "four\n4\n"
    missing = asked("sql", "--file", "nosuch.sql")
    assert missing.code == 2 and "nosuch.sql" in missing.err


def test_what_is_refused_or_wrong_is_said_in_one_line(cli: Cli) -> None:
    for statement, code, word in (
        ("DELETE FROM tasks", 2, "query_refused"),
        ("SELECT nothing FROM tasks", 1, "nothing"),
        ("SELECT 1; SELECT 2", 2, "one statement"),
    ):
        outcome = cli("sql", statement)
        assert (outcome.code, outcome.out) == (code, ""), statement
        assert word in outcome.err and "Traceback" not in outcome.err
    broken = json.loads(cli("sql", "DELETE FROM tasks", "--json").out)
    assert broken["error"]["field"] == "statement"


def test_the_queries_that_come_with_choir_are_listed(offline_cli: Cli) -> None:
    listed = offline_cli("sql", "--queries")
    assert listed.code == 0
    for name in ("latency_by_model", "slowest_requests", "stage_bubble", "chain_peers"):
        assert name in listed.out


def test_the_log_of_every_peer_is_written_as_csv_and_json(asked: Cli, tmp_path: Path) -> None:
    outcome = asked("export", "--format", "csv", "--out", str(tmp_path / "out"))
    assert outcome.code == 0 and "peers.csv" in outcome.out
    with (tmp_path / "out" / "peers.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["request_id"] == ASKED]
    assert len(rows) == 1
    row = rows[0]
    assert (row["model"], row["topology"], row["error_code"]) == ("choir-one", "single", "")
    assert float(row["total_duration_s"]) >= 0 and int(row["generated_tokens"]) > 0
    assert {"load_duration_s", "prompt_eval_duration_s", "eval_duration_s", "network_latency_ms"} <= set(row)
    assert asked("export", "--format", "json", "--out", str(tmp_path)).code == 0
    lines = (tmp_path / "peers.jsonl").read_text().splitlines()
    again = json.loads(asked("export", "--out", str(tmp_path), "--json").out)
    assert again["file"] == str(tmp_path / "peers.csv") and again["tasks"] >= 1
    assert ASKED in {json.loads(line)["request_id"] for line in lines}
    refused = asked("export", "--out", "/proc/nowhere")
    assert refused.code == 1 and "/proc/nowhere" in refused.err


def test_the_prompt_answers_completes_and_remembers(live_mesh: str, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)
    with on_terminal(choir_command("sql"), environment) as t:
        t.wait_for("choir sql>")
        t.type("SELECT 40 + 2 AS answer\r")
        t.wait_for("1 row in")
        t.type("DROP TABLE task_completed\r")
        t.wait_for("query_refused")
        t.type("SELECT count(*) AS n FROM service_star\t")
        t.wait_for("service_started")
        t.type("\r")
        t.type("\x04")
        assert t.exit_code() == 0
        assert "42" in t.text and "Traceback" not in t.text
    assert "40 + 2" in (tmp_path / "choir" / "sql_history").read_text()


def test_an_empty_statement_is_refused_and_opens_no_prompt(offline_cli: Cli) -> None:
    for arguments in (("sql", ""), ("sql", " \n")):
        outcome = offline_cli(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert "statement: it is empty" in outcome.err
