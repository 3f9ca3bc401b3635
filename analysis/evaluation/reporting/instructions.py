"""The files of a run whose texts are checked by what their prompts ask of them: no voting tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.run_folder import RunConfig, RunFolder
from analysis.evaluation.benchmarks.benchmark import INSTRUCTIONS
from analysis.evaluation.reporting.raw_records import raw_records
from analysis.evaluation.reporting.tables import Row, write_table
from analysis.evaluation.scoring.instructions.checks import check_able
from analysis.evaluation.scoring.instructions.checks import version as version_of_checks
from analysis.evaluation.scoring.instructions.table import instruction_rows, marked, text_rows

TABLE, TEXTS = "instructions", "instruction_texts"
FIGURES = {
    "prompt_strict": "prompts strict, %",
    "instruction_strict": "instructions",
    "prompt_loose": "prompts loose, %",
    "instruction_loose": "instructions",
}


def checks_texts(config: RunConfig) -> bool:
    """Whether the texts of a run are checked as such: nobody votes in it."""
    return INSTRUCTIONS in {described["extraction"] for described in config.benchmarks.values()}


def write_checked(folder: RunFolder, journal: Sequence[Exchange]) -> None:
    """Writes the four figures of each contestant, each check of each text, and every raw answer."""
    config = folder.config
    check_able(kept.instructions for kept in journal)
    texts = marked(journal, config.options.strategies)
    rows = [{**row, "checked_by": f"lm_eval {version_of_checks()}"} for row in instruction_rows(texts)]
    write_table(folder.path, TABLE, rows)
    write_table(folder.path, TEXTS, text_rows(texts))
    ways = {name: described["extraction"] for name, described in config.benchmarks.items()}
    write_table(folder.path, "raw_records", raw_records(journal, ways, config.models), parquet=True)


def show_checked(folder: RunFolder, out: Console, *, as_json: bool) -> None:
    """Prints the four figures for people, or as one JSON document on standard output."""
    rows = json.loads((folder.path / f"{TABLE}.json").read_text(encoding="utf-8"))
    if as_json:
        document = {"run": str(folder.path), TABLE: rows}
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    out.print(_table(rows))
    out.print(f"{folder.path / TABLE}.csv")


def _table(rows: Sequence[Row]) -> Table:
    first = rows[0]
    title = f"{first['benchmark']}: {first['n_prompts']} prompts, checked by {first['checked_by']}; no votes"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("", "asked", *FIGURES.values(), "missing", "fell back"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(
            row["contestant"],
            str(row["repetition"]),
            *(_figure(row, name) for name in FIGURES),
            str(row["missing"]),
            str(row["fell_back"]),
        )
    return table


def _figure(row: Row, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{100 * row[name]:.1f}" + ("" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]")
