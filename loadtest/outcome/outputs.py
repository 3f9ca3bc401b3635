"""A run as files: `results/loadtest_<time>_<name>/` with JSON, CSV, Parquet, DuckDB, charts and a page."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from loadtest.bench.report import installed_versions, this_machine
from loadtest.chaos import Mark
from loadtest.faults import WrongOption
from loadtest.generate.plan import LoadPlan
from loadtest.outcome.metrics import METRICS
from loadtest.outcome.summary import STATISTICS, Summary

RESULTS = Path("results")
CONFIG, SUMMARY, REQUESTS = "config.json", "summary.json", "requests.parquet"


def new_folder(name: str, out: Path | None) -> Path:
    """The folder of a new run; WrongOption if it cannot be made, or has something in it."""
    folder = out or RESULTS / f"loadtest_{datetime.now(UTC):%Y%m%d_%H%M%S}_{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise WrongOption(f"--out {folder}: there is something in it")
    except OSError as error:
        raise WrongOption(f"--out {folder} cannot be made: {error.strerror}") from error
    return folder


def write_config(folder: Path, plan: LoadPlan, options: dict[str, Any]) -> None:
    """What was run, on what, before it begins."""
    document = {
        "plan": _plain(dataclasses.asdict(plan)),
        "options": _plain(options),
        "started_at": datetime.now(UTC).isoformat(),
        "machine": this_machine().model_dump(),
        "versions": installed_versions(),
        "metrics": {name: metric.formula for name, metric in METRICS.items()},
    }
    (folder / CONFIG).write_text(json.dumps(document, indent=2) + "\n")


def write_results(folder: Path, summary: Summary, marks: Sequence[Mark] = ()) -> None:
    """The summary as JSON and CSV, and all requests of the generators as Parquet, CSV and DuckDB."""
    document = {**summary.model_dump(), "marks": [dataclasses.asdict(mark) for mark in marks]}
    (folder / SUMMARY).write_text(json.dumps(document, indent=2) + "\n")
    _write_summary_csv(folder / "summary.csv", summary)
    parts = sorted(folder.glob(".records-*.parquet"))
    _write_database(folder, [str(part) for part in parts], summary)
    for part in (*parts, *folder.glob(".order-*")):
        part.unlink()


def _write_summary_csv(path: Path, summary: Summary) -> None:
    """One row for each workload and metric; `all` are the workloads together."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("workload", "metric", "formula", "n", *(f"{name}_ms" for name in STATISTICS)))
        for workload, metrics in _by_workload(summary):
            for name, found in metrics.items():
                figures = (round(getattr(found, statistic), 4) for statistic in STATISTICS)
                rows.writerow((workload, name, METRICS[name].formula, found.n, *figures))


def _by_workload(summary: Summary) -> list[tuple[str, dict[str, Any]]]:
    own = [(name, workload.metrics) for name, workload in summary.workloads.items()]
    return [("all", summary.metrics), *own]


def _write_database(folder: Path, parts: list[str], summary: Summary) -> None:
    """`run.duckdb`: `requests` with their metrics as columns, `columns` with what they mean, `summary`."""
    with duckdb.connect(str(folder / "run.duckdb")) as database:
        database.execute(
            "CREATE TABLE requests AS SELECT *,"
            " (sent_s - intended_s) * 1000 AS lag_ms, (first_s - sent_s) * 1000 AS ttft_ms,"
            " (done_s - sent_s) * 1000 AS e2e_ms, (done_s - intended_s) * 1000 AS e2e_intended_ms,"
            " CASE WHEN tokens > 1 THEN (done_s - first_s) * 1000 / (tokens - 1) END AS tpot_ms"
            " FROM read_parquet(?) ORDER BY intended_s, number",
            [parts],
        )
        database.execute("CREATE TABLE columns (metric VARCHAR, formula VARCHAR)")
        database.executemany(
            "INSERT INTO columns VALUES (?, ?)", [(name, metric.formula) for name, metric in METRICS.items()]
        )
        database.execute(
            "CREATE TABLE summary AS SELECT unnest(?::JSON[]) AS document", [[summary.model_dump_json()]]
        )
        pq.write_table(database.sql("SELECT * FROM requests").to_arrow_table(), folder / REQUESTS)
        rows = "SELECT * EXCLUDE (gaps_ms) FROM requests"
        database.execute(f"COPY ({rows}) TO '{_quoted(folder / 'requests.csv')}' (HEADER)")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _plain(value: Any) -> Any:
    """Paths and tuples as JSON has them."""
    match value:
        case dict():
            return {str(key): _plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case Path():
            return str(value)
        case _:
            return value
