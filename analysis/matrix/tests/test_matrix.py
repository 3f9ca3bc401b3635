"""Cells, rows, averages and the folder of a matrix: values in, values out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from analysis.charts.drawing.render import specification, svg_image
from analysis.charts.heatmaps import HEATMAPS, heatmap
from analysis.matrix.averages import PairAverage, figure, pair_averages
from analysis.matrix.folder import CSV_FILE, RESULTS_FILE, MatrixFolder
from analysis.matrix.options import MatrixOptions, read_prompts
from analysis.matrix.plan import Cell, ask, cells, request_id
from analysis.matrix.record import COLUMNS, Record, row
from schemas.errors import DeadlineExceeded, InvalidRequest
from schemas.replies import Answer, ChainStep, Result, Timings

OPTIONS = MatrixOptions(
    generators=("a", "b"), summarizers=("c", "d"), prompts=("one", "two"), repetitions=2, seed=7
)


def step(name: str, tokens: int, eval_s: float, latency_ns: int | None = None) -> ChainStep:
    return ChainStep(
        agent=name,
        model=name,
        instance=f"agent-of-{name}",
        prompt_tokens=3,
        generated_tokens=tokens,
        timings=Timings(total_duration_ns=9, load_duration_ns=1, eval_duration_ns=int(eval_s * 1e9)),
        tokens_per_s=tokens / eval_s,
        round_trip_ns=11,
        ping_ns=5,
        network_latency_ns=latency_ns,
    )


def record(cell: Cell, seconds: float = 2.0) -> Record:
    identity = request_id("run", cell)
    answer = Answer(request_id=identity, agent="a", model="a", instance="i", text="ok", finish_reason="stop")
    result = Result(
        request_id=identity,
        fingerprint="f",
        topology="chain",
        text="ok",
        answers=(answer, answer),
        steps=(step(cell.generator, 10, 1.0), step(cell.summarizer, 20, 0.5, latency_ns=6)),
        accepted_at_s=100.0,
        completed_at_s=100.0 + seconds,
    )
    return Record(request_id=identity, cell=cell, result=result)


def failed(cell: Cell) -> Record:
    identity = request_id("run", cell)
    return Record(request_id=identity, cell=cell, error=DeadlineExceeded("too late").body(identity))


def test_every_pair_meets_every_prompt_once_before_any_is_repeated() -> None:
    plan = cells(OPTIONS)
    assert len(plan) == 2 * 2 * 2 * 2 == len({request_id("run", cell) for cell in plan})
    assert [cell.repetition for cell in plan] == [1] * 8 + [2] * 8
    assert {(cell.generator, cell.summarizer) for cell in plan[:4]} == {
        (generator, summarizer) for generator in "ab" for summarizer in "cd"
    }


def test_a_cell_keeps_its_request_and_another_run_has_its_own() -> None:
    cell = cells(OPTIONS)[0]
    assert request_id("run", cell) == request_id("run", cell.model_copy())
    assert request_id("run", cell) != request_id("another", cell)


def test_each_repetition_draws_with_a_seed_of_its_own() -> None:
    asked = [ask("run", cell, OPTIONS) for cell in cells(OPTIONS)]
    assert {request.sampling.seed for request in asked} == {7, 8}
    assert (asked[1].model, asked[1].summarize_with, asked[1].prompt) == ("a", ("d",), "one")


def test_a_row_has_every_column_and_what_was_measured() -> None:
    values = row(record(cells(OPTIONS)[0]))
    assert tuple(values) == COLUMNS
    assert (values["total_time_s"], values["tokens_per_s"]) == (2.0, 30 / 1.5)
    assert values["network_latency_ns"] == 6
    for peer, name, tokens in (("generator", "a", 10), ("summarizer", "c", 20)):
        assert (values[f"{peer}_model"], values[f"{peer}_generated_tokens"]) == (name, tokens)
        assert (values[f"{peer}_total_duration_ns"], values[f"{peer}_load_duration_ns"]) == (9, 1)
    assert (values["generator_tokens_per_s"], values["summarizer_tokens_per_s"]) == (10.0, 40.0)


def test_a_failed_cell_has_its_error_and_no_figures() -> None:
    values = row(failed(cells(OPTIONS)[0]))
    assert (values["success"], values["error_code"], values["error"]) == (
        False,
        "deadline_exceeded",
        "too late",
    )
    assert values["total_time_s"] is None


def test_a_cell_that_took_less_than_two_clocks_are_apart_took_no_time_and_not_less() -> None:
    values = row(record(cells(OPTIONS)[0], seconds=-0.01))
    assert (values["success"], values["total_time_s"]) == (True, 0.0)


def test_a_pair_s_means_leave_failures_out() -> None:
    plan = [cell for cell in cells(OPTIONS) if (cell.generator, cell.summarizer) == ("a", "c")]
    (pair,) = pair_averages([row(record(plan[0], 1.0)), row(record(plan[1], 2.0)), row(failed(plan[2]))])
    assert (pair.cells, pair.failed, pair.total_time_s) == (3, 1, 1.5)
    assert pair.total_time_sd_s == pytest.approx(0.5**0.5)
    assert pair.network_latency_ms == pytest.approx(6e-6)


def test_a_pair_that_never_succeeded_has_no_means() -> None:
    (pair,) = pair_averages([row(failed(cells(OPTIONS)[0]))])
    assert (pair.cells, pair.failed, pair.total_time_s, pair.tokens_per_s) == (1, 1, None, None)


def test_what_was_kept_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    first, second = (record(cell) for cell in cells(OPTIONS)[:2])
    with MatrixFolder.open(tmp_path / "out", OPTIONS) as folder:
        run_id = folder.run.run_id
        folder.keep(first.request_id, first)
    with (tmp_path / "out" / RESULTS_FILE).open("ab") as file:
        file.write(b'{"torn')
    with MatrixFolder.open(tmp_path / "out", OPTIONS) as folder:
        assert folder.run.run_id == run_id
        assert folder.records == {first.request_id: first}
        folder.keep(second.request_id, second)
    with (tmp_path / "out" / CSV_FILE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [each["request_id"] for each in rows] == [first.request_id, second.request_id]
    assert tuple(rows[0]) == COLUMNS


def test_a_damaged_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    with MatrixFolder.open(tmp_path, OPTIONS):
        (tmp_path / RESULTS_FILE).write_text("{}\n")
    with pytest.raises(InvalidRequest, match="is damaged"), MatrixFolder.open(tmp_path, OPTIONS):
        pass


def test_two_matrices_do_not_write_one_folder(tmp_path: Path) -> None:
    first, second = (record(cell) for cell in cells(OPTIONS)[:2])
    with MatrixFolder.open(tmp_path, OPTIONS) as folder:
        folder.keep(first.request_id, first)
        with pytest.raises(InvalidRequest, match="another matrix is writing"):
            MatrixFolder.open(tmp_path, OPTIONS).__enter__()
        folder.keep(second.request_id, second)
    with (tmp_path / CSV_FILE).open(newline="", encoding="utf-8") as file:
        assert [row["request_id"] for row in csv.DictReader(file)] == [first.request_id, second.request_id]


def test_prompts_come_from_the_file_and_then_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("﻿One?\n\n  Two?  \n", encoding="utf-8")
    assert read_prompts(file, ["Three?"]) == ("One?", "Two?", "Three?")
    file.write_text("\n \n")
    with pytest.raises(InvalidRequest, match="there is none"):
        read_prompts(file, [])


def average(generator: str, summarizer: str, **values: Any) -> PairAverage:
    return PairAverage(generator=generator, summarizer=summarizer, **{"cells": 1, "failed": 0, **values})


@pytest.mark.parametrize("name", HEATMAPS)
def test_a_heatmap_has_a_cell_for_each_measured_pair_and_a_place_for_all(name: str) -> None:
    measure = HEATMAPS[name]
    pairs = [average("a", "c", **{measure.field: 1.0}), average("b", "d")]
    spec = specification(heatmap(pairs, measure))
    (values,) = spec["datasets"].values()
    assert [value["generator"] for value in values] == ["a"]
    encoding = spec["layer"][0]["encoding"]
    assert encoding["y"]["scale"]["domain"] == ["a", "b"]
    assert encoding["x"]["scale"]["domain"] == ["c", "d"]
    assert spec["title"]["text"] == measure.title
    assert encoding["color"]["legend"]["title"] == measure.unit


def test_a_cell_says_what_the_table_says_and_of_how_many() -> None:
    pairs = [average("a", "c", tokens_per_s=1_345.2, cells=9, failed=1)]
    shown = svg_image(specification(heatmap(pairs, HEATMAPS["tokens_per_s"])))
    assert "1,345 tokens/s" in shown and "n = 8" in shown


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(None, "s", "-"), (0.01234, "s", "0.0123 s"), (12.345, "ms", "12.3 ms"), (4321.6, "", "4,322")],
)
def test_figures_have_three_digits(value: float | None, unit: str, said: str) -> None:
    assert figure(value, unit) == said
