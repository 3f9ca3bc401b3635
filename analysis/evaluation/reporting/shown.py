"""Prints what a run came to, for people or as one JSON document on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.charts.evaluation.picture import why_absent
from analysis.evaluation.asking.run_folder import RunFolder
from analysis.evaluation.reporting.instructions import checks_texts, show_checked
from analysis.evaluation.reporting.report import MOSTLY_REPEATED

WIDTH_WITHOUT_TERMINAL = 120


def show(folder: RunFolder, *, as_json: bool) -> None:
    """Prints the summary of a run whose files are written."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    out = Console(highlight=False, markup=False, emoji=False, width=width)
    if checks_texts(folder.config):
        show_checked(folder, out, as_json=as_json)
        return
    summary = _rows(folder, "summary")
    if as_json:
        document = {
            "run": str(folder.path),
            "summary": summary,
            "significance": _rows(folder, "significance"),
            "overall_summary": _rows(folder, "overall_summary"),
            "overall_significance": _rows(folder, "overall_significance"),
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    for benchmark in dict.fromkeys(row["benchmark"] for row in summary):
        out.print(_table(benchmark, [row for row in summary if row["benchmark"] == benchmark]))
    for benchmark, row in {row["benchmark"]: row for row in summary}.items():
        if (row["repeated_texts"] or 0.0) > MOSTLY_REPEATED:
            out.print(
                f"{benchmark}: {row['repeated_texts']:.0%} of the answers in later repetitions are the text "
                f"of the first: "
                "they tell little",
                style="dim",
            )
    for line in why_absent(summary):
        out.print(f"seconds {line}", style="dim")
    out.print(f"{folder.path / 'report.html'}")


def _rows(folder: RunFolder, name: str) -> Any:
    return json.loads((folder.path / f"{name}.json").read_text(encoding="utf-8"))


def _seconds(row: dict[str, Any]) -> str:
    seconds = row["seconds_per_question"]
    return "-" if seconds is None else f"{seconds:.3f}"


def _table(benchmark: str, rows: list[dict[str, Any]]) -> Table:
    first = rows[0]
    seen = f"; {first['seen_in_training']}" if first["seen_in_training"] else ""
    title = f"{benchmark}: {first['n_questions']} questions, {first['n_samples']} samples{seen}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in (
        "",
        "learns from",
        "accuracy",
        "95 % interval",
        "tokens",
        "seconds",
        "calls",
        "unread",
        "ties",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(
            row["contestant"],
            row["learns_from"],
            f"{row['accuracy']:.1%}",
            f"{row['wilson_low']:.1%} to {row['wilson_high']:.1%}",
            f"{row['tokens_per_question']:.0f}",
            _seconds(row),
            f"{row['calls_per_question']:.1f}",
            str(row["extraction_failures"] + row["missing_answers"]),
            str(row["ties"]),
        )
    return table
