"""Runs on disk: tables, charts, two side by side, and each question with who said what."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import httpx

EVALUATION, LOAD_TEST = "run_20261122-010203_eval", "loadtest_20261122_010203_run"
RECORDS = """
SELECT * FROM (VALUES
    ('q1', 0, 'one', 'A', 'A', true), ('q1', 0, 'two', 'B', 'A', false),
    ('q2', 1, 'one', 'C', 'C', true), ('q2', 1, 'two', 'C', 'C', true)
) AS said(question_id, position, agent, answer, right_answer, correct),
(SELECT 'set' AS benchmark, 1 AS repetition, 'question' AS purpose, 'topic' AS topic,
    '<b>What?</b>' AS prompt,
    'I say' AS text, NULL::VARCHAR AS error)
"""
DECISIONS = """
SELECT * FROM (VALUES
    ('q1', 'majority', 'A', true), ('q1', 'isp', 'B', false), ('q2', 'majority', 'C', true),
    ('q2', 'isp', 'C', true)
) AS made(question_id, contestant, answer, "right"),
(SELECT 'set' AS benchmark, 1 AS repetition, 'strategy' AS "group", NULL::VARCHAR AS note)
"""


def write_runs(results: Path) -> None:
    """An evaluation of two questions, and a load test that was cut off."""
    run = results / EVALUATION
    (run / "charts").mkdir(parents=True)
    (run / "charts" / "set-accuracy.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (run / "config.json").write_text(
        json.dumps({"created_at": "2026-11-22T01:02:03Z", "benchmarks": {"set": {}}})
    )
    summary = [{"benchmark": "set", "contestant": "majority", "group": "strategy", "accuracy": 0.875}]
    (run / "summary.json").write_text(json.dumps(summary))
    for name, rows in (("raw_records", RECORDS), ("decisions", DECISIONS)):
        duckdb.execute(f"COPY ({rows}) TO '{run / name}.parquet'")
    cut = results / LOAD_TEST
    cut.mkdir()
    (cut / "summary.json").write_text('{"metrics": ')
    (results / "run_x<script>").mkdir()


async def test_runs_are_listed_shown_side_by_side_and_cut_off_ones_too(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    assert "There are none in" in (await http.get("/dashboard/runs")).text
    write_runs(tmp_path / "results")
    listed = (await http.get("/dashboard/runs")).text
    assert EVALUATION in listed and LOAD_TEST in listed and "script&gt;" not in listed
    both = (await http.get(f"/dashboard/runs?run={EVALUATION}&beside={LOAD_TEST}")).text
    assert "87.5 %" in both and "It has no summary" in both
    chart = await http.get(f"/dashboard/runs/{EVALUATION}/charts/set-accuracy.svg")
    assert (
        chart.headers["content-type"] == "image/svg+xml"
        and "sandbox" in chart.headers["content-security-policy"]
    )
    for path in (
        f"{EVALUATION}/charts/none.svg",
        f"{EVALUATION}/charts/..%2Fconfig.json",
        "..%2Frun_x/questions",
    ):
        assert (await http.get(f"/dashboard/runs/{path}")).status_code == 404, path
    assert (await http.get("/dashboard/runs?run=run_nobody")).status_code == 404


async def test_each_question_says_what_agents_said_and_is_found_by_disagreement(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    write_runs(tmp_path / "results")
    for show, there in (
        ("all", {"q1", "q2"}),
        ("agents disagree", {"q1"}),
        ("strategies disagree", {"q1"}),
        ("all agents wrong", set()),
        ("a strategy wrong", {"q1"}),
    ):
        page = (await http.get(f"/dashboard/runs/{EVALUATION}/questions", params={"show": show})).text
        assert {name for name in ("q1", "q2") if f"set {name}" in page} == there, show
    page = (await http.get(f"/dashboard/runs/{EVALUATION}/questions?page=99999999999999999999")).text
    assert "No such question" in page
    assert "&lt;b&gt;What?" in (await http.get(f"/dashboard/runs/{EVALUATION}/questions")).text
    broken = tmp_path / "results" / EVALUATION / "decisions.parquet"
    broken.write_bytes(b"no parquet")
    assert "cannot be read" in (await http.get(f"/dashboard/runs/{EVALUATION}/questions")).text
