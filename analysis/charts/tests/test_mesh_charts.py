"""Every chart of the mesh's events: drawn from rows as its query gives them, and from rows at the edge."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analysis.charts.drawing.columns import columns
from analysis.charts.drawing.render import png_image, render, specification, svg_image
from analysis.charts.drawing.rows import unpivoted, utc, written
from analysis.charts.mesh import MESH_CHARTS
from analysis.charts.mesh.activity import activity, with_ends
from analysis.charts.mesh.request_timeline import kind_of, request_timeline
from services.client.queries.query_file import SHIPPED, shipped

PERCENTILES = {"p50_ms": 12.5, "p95_ms": 30.0, "p99_ms": 44.0}
ROWS: dict[str, list[dict[str, Any]]] = {
    "activity": [
        {"at": f"2026-01-31T12:0{minute}:00", "requests": minute, "failed": 0, "requests_per_s": minute / 60,
         "tokens_per_s": 2.0 * minute, "p50_ms": 12.0, "p95_ms": 40.0}
        for minute in (0, 1, 5)
    ],
    "latency_by_model": [
        {"model": "alpha", "topology": "single", "tasks": 9, "failed": 1, "mean_ms": 13.0, **PERCENTILES},
        {"model": "beta", "topology": "-", "tasks": 0, "failed": 2, "mean_ms": None, "p50_ms": None,
         "p95_ms": None, "p99_ms": None},
    ],
    "time_to_first_token": [{"model": "alpha", "tasks": 9, **PERCENTILES}],
    "tokens_by_node": [
        {"instance": "a", "host": "h", "model": model, "tasks": 3, "tokens_per_s": speed}
        for model, speed in (("alpha", 120.5), ("beta", None), ("gamma", 80.0))
    ],
    "queue_against_load": [
        {"model": "alpha", "waiting_from": load, "waiting_to": load, "tasks": 2, "p50_ms": 1.0 + load,
         "p95_ms": 3.0 + load, "max_ms": 9.0}
        for load in (0, 1, 2)
    ],
    "agreement": [
        {"strategy": "majority", "decisions": 4, "ties": 1, "mean_share": 0.8, "mean_margin": 0.6,
         "unanimous": 0.5, "judged": 0, "accuracy": None}
    ],
    "error_budget": [
        {"hour": "2026-01-31T12:00:00", "requests": 100, "failed": 2, "success": 0.98, "budget_used": 2.0,
         "budget_used_total": 2.0, "worst_code": "overloaded"}
    ],
    "stage_bubbles": [
        {"pipeline": "big", "stage": stage, "instance": f"stage-{stage}", "steps": 9, "tokens": 9,
         "mean_batch": 1.0, "compute_ms": 4.0, "bubble_ms": 1.0, "hop_ms": 0.3, "bubble_share": 0.2}
        for stage in (0, 1)
    ],
}  # fmt: skip
PIECE = {
    "what": "generate", "label": "generating", "service": "agent", "model": "alpha", "round": 1,
    "delivery": 1, "started_ms": 1.0, "ended_ms": 9.0, "detail": None,
}  # fmt: skip

charts = pytest.mark.parametrize("name", MESH_CHARTS)


def texts(svg: str) -> str:
    """What is written in a picture."""
    return " ".join(part.split("<")[0] for part in svg.split(">"))


def test_an_axis_of_times_goes_by_the_clock_of_24_hours() -> None:
    rows = [{**ROWS["activity"][0], "at": f"2026-01-31T20:4{minute}:00"} for minute in (0, 3, 6)]
    for chart in (activity(rows), columns(rows)):
        words = texts(svg_image(specification(chart)))
        assert "20:44" in words and "08:4" not in words and "UTC" in words


@charts
def test_every_chart_has_its_query_and_rows_to_be_tried_with(name: str) -> None:
    assert MESH_CHARTS[name].query in SHIPPED
    assert name in ROWS


@charts
def test_a_chart_is_drawn_from_the_rows_of_its_query(name: str) -> None:
    spec = specification(MESH_CHARTS[name].draw(ROWS[name]))
    assert png_image(spec).startswith(b"\x89PNG")
    assert "NaN" not in svg_image(spec)


@charts
def test_the_columns_that_a_chart_draws_are_those_of_its_query(name: str) -> None:
    statement = shipped(MESH_CHARTS[name].query).statement
    assert [column for column in ROWS[name][0] if column not in statement] == []


def test_names_and_figures_can_be_read_in_the_picture() -> None:
    shown = texts(svg_image(specification(MESH_CHARTS["latency_by_model"].draw(ROWS["latency_by_model"]))))
    assert "alpha, single" in shown and "12.5" in shown
    assert "beta" not in shown  # nothing of it was answered, so there is nothing to draw


def test_what_nobody_has_judged_is_not_in_the_legend() -> None:
    shown = texts(svg_image(specification(MESH_CHARTS["agreement"].draw(ROWS["agreement"]))))
    assert "unanimous" in shown and "judged" not in shown


def test_each_step_ends_where_the_next_would_begin() -> None:
    placed = with_ends(ROWS["activity"])
    assert [(row["at"][14:19], row["until"][14:19]) for row in placed] == [
        ("00:00", "01:00"), ("01:00", "02:00"), ("05:00", "06:00"),
    ]  # fmt: skip


def test_times_of_the_database_are_utc() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert utc("2026-01-31T12:00:00") == utc("2026-01-31T14:00:00+02:00") == utc(noon) == noon
    assert written(noon) == "2026-01-31T12:00:00.000000Z"


def test_what_has_no_value_has_no_mark() -> None:
    rows = [{"a": 1, "b": None}]
    assert unpivoted(rows, {"a": "first", "b": "second"}) == [{**rows[0], "kind": "first", "value": 1}]


def test_the_way_of_a_request_has_a_line_for_every_piece(tmp_path: Path) -> None:
    pieces = [
        PIECE,
        PIECE,  # the same thing again is a line of its own
        {**PIECE, "what": "lost", "label": "attempt without an outcome", "ended_ms": None, "delivery": 2},
        {**PIECE, "what": "replied"},
    ]
    png, svg, page = render(request_timeline(pieces, "request r1"), tmp_path / "way")
    shown = texts(svg.read_text())
    assert shown.count("alpha: generating") == 2 and shown.count("8.00 ms") == 3
    assert "alpha, delivery 2: attempt without an outcome" in shown and "replied" not in shown
    assert "one answer of alpha, 9.00 ms in all" in shown
    assert "in vain" in shown and "stores" not in shown, "the legend has what is there"
    assert png.stat().st_size > 1000 and "http://" not in page.read_text().split("<body>")[1]


def test_a_request_is_called_what_its_pieces_show() -> None:
    other = {**PIECE, "model": "beta"}
    decided, summed = (
        {**PIECE, "what": "decide", "model": None},
        {**PIECE, "what": "summarise", "model": None},
    )
    assert kind_of([PIECE, other, decided]) == "an ensemble of 2 models"
    assert kind_of([PIECE, other, summed]) == "a chain over 2 models"
