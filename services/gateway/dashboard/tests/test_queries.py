"""The SQL page: queries that come with Choir, statements of one's own; rows as table, chart and file."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from analysis.charts.drawing.server import answer
from services.gateway.dashboard.queries.question import Question, shipped
from services.gateway.dashboard.shell.drawing import Drawing

STATEMENT = (
    "SELECT 'a,\"b\"' AS name, 1.5 AS value UNION ALL SELECT '<script>alert(1)</script>', 2 ORDER BY value"
)


async def test_rows_of_a_statement_are_a_table_a_chart_and_a_file(http: httpx.AsyncClient) -> None:
    page = await http.get("/dashboard/queries", params={"sql": STATEMENT})
    assert (
        "2 rows" in page.text and "&lt;script&gt;alert(1)" in page.text and "<script>alert" not in page.text
    )
    files = {
        ending: await http.get(f"/dashboard/queries/export/{ending}", params={"sql": STATEMENT})
        for ending in ("csv", "json", "parquet")
    }
    assert files["csv"].text == 'name,value\r\n"a,""b""",1.5\r\n<script>alert(1)</script>,2.0\r\n'
    assert files["json"].json()["rows"][0] == ['a,"b"', 1.5]
    assert pq.read_table(io.BytesIO(files["parquet"].content)).column("value").to_pylist() == [1.5, 2.0]
    for file in files.values():
        assert file.headers["content-disposition"].startswith("attachment")
        assert file.headers["choir-truncated"] == "false"
    chart = (await http.get("/dashboard/queries/chart", params={"sql": STATEMENT})).json()
    assert chart["spec"]["mark"]["type"] == "bar"


async def test_what_is_wrong_with_a_question_stands_on_its_page(http: httpx.AsyncClient) -> None:
    for asked, told in (
        ({"sql": "DROP TABLE events"}, 'role="alert"'),
        ({"sql": "SELECT nothing FROM nowhere"}, "nowhere"),
        ({"query": "activity", "p.step_s": "often"}, "step_s"),
        ({"query": "waterfall"}, "It needs a value for each parameter"),
        ({"query": "activity"}, "What does the mesh do, minute by minute?"),
    ):
        reply = await http.get("/dashboard/queries", params=asked)
        assert (reply.status_code, told in reply.text) == (200, True), asked
    assert (await http.get("/dashboard/queries?query=none")).status_code == 400
    assert (await http.get("/dashboard/queries/export/csv")).status_code == 400


def test_every_query_that_comes_with_choir_says_what_it_asks() -> None:
    assert len(shipped()) > 10
    for name, file in shipped().items():
        assert file.question, name
        assert "query=" in Question(name, file, {"a": "b"}).address


def test_rows_of_any_kind_are_drawn_and_others_are_told() -> None:
    times = [{"at": f"2026-11-22T06:0{minute}:00", "busy": minute} for minute in range(3)]
    line = answer({"chart": "columns", "rows": times})["spec"]
    assert line["mark"]["type"] == "line" and line["encoding"]["x"]["type"] == "temporal"
    points = answer({"query": "of my own", "rows": [{"busy": 1}, {"busy": 2.5}]})["spec"]
    assert points["mark"]["type"] == "point"
    assert answer({"query": "activity", "rows": []})["spec"]["title"] == "Activity"
    assert (
        "no column of these rows has numbers" in answer({"chart": "columns", "rows": [{"a": "b"}]})["problem"]
    )


async def test_a_chart_is_drawn_and_nothing_in_the_folder_of_the_gateway_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = 'from pathlib import Path\nPath(__file__).with_name("ran").touch()\n'
    for program in ("altair.py", "analysis/__init__.py"):
        (tmp_path / program).parent.mkdir(exist_ok=True)
        (tmp_path / program).write_text(trap)
    monkeypatch.chdir(tmp_path)
    drawing = Drawing()
    try:
        first = await drawing.of_query("", [{"busy": 1}])
        assert first["mark"]["type"] == "point"
    finally:
        await drawing.close()
        assert not list(tmp_path.rglob("ran"))
