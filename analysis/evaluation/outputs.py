"""Everything that is written from the answers of a run: tables, significance, charts, LaTeX, a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.evaluation.charts import Picture
from analysis.evaluation.charts.write import write_charts
from analysis.evaluation.comparison import significance_rows
from analysis.evaluation.information import repeated_texts
from analysis.evaluation.journal import read_journal
from analysis.evaluation.latex import significance_table, summary_table
from analysis.evaluation.outcome import Outcome
from analysis.evaluation.raw_records import raw_records
from analysis.evaluation.reaggregation import reaggregate
from analysis.evaluation.report import Part, report
from analysis.evaluation.run_folder import RunConfig, RunFolder
from analysis.evaluation.scores import OVERALL, Field, fields
from analysis.evaluation.summary import summary_rows
from analysis.evaluation.tables import Row, write_table
from analysis.evaluation.usage import UsageSample, read_usage
from schemas.errors import InvalidRequest

REPORT_FILE = "report.html"


def write_outputs(folder: RunFolder) -> None:
    """Writes all files of a run from its journal; InvalidRequest if nothing has been asked yet."""
    config = folder.config
    exchanges = read_journal(folder.journal)
    if not exchanges:
        raise InvalidRequest(f"resume: {folder.path} holds no answers", field="resume")
    ways = {name: described["extraction"] for name, described in config.benchmarks.items()}
    outcomes = reaggregate(exchanges, ways, config.options.strategies, config.options.seed)
    write_table(folder.path, "raw_records", raw_records(exchanges, ways), parquet=True)
    write_table(folder.path, "decisions", [outcome._asdict() for outcome in outcomes], parquet=True)
    repeated = {
        name: repeated_texts([e for e in exchanges if e.benchmark == name]) for name in config.benchmarks
    }
    repeated[OVERALL] = repeated_texts(exchanges)
    write_statistics(folder.path, config, outcomes, read_usage(folder.usage), repeated)


def write_statistics(
    folder: Path,
    config: RunConfig,
    outcomes: Sequence[Outcome],
    usage: Sequence[UsageSample],
    repeated: Mapping[str, float | None],
) -> None:
    """Writes what is said of the outcomes: of each benchmark, and of all together.

    `repeated` is the share of later repetitions' texts that repeat the first one's, by benchmark.
    """
    seed = config.options.seed
    scored = fields(outcomes)
    summary = {
        field.benchmark: summary_rows(field, usage, seed, repeated.get(field.benchmark)) for field in scored
    }
    tests = {field.benchmark: significance_rows(field, seed) for field in scored}
    _write_tables(folder, "overall_", summary[OVERALL], tests[OVERALL])
    _write_tables(folder, "", _each(summary), _each(tests))
    _write_pictures(folder, config, scored, summary, tests)


def _each(rows: dict[str, list[Row]]) -> list[Row]:
    """The rows of the single benchmarks."""
    return [row for benchmark, of_one in rows.items() if benchmark != OVERALL for row in of_one]


def _write_tables(folder: Path, prefix: str, summary: list[Row], tests: list[Row]) -> None:
    write_table(folder, f"{prefix}summary", summary)
    write_table(folder, f"{prefix}significance", tests)
    label = f"tab:{prefix.replace('_', '-')}"
    (folder / f"{prefix}summary_table.tex").write_text(
        summary_table(summary, f"{label}summary"), encoding="utf-8"
    )
    (folder / f"{prefix}significance_table.tex").write_text(
        significance_table(tests, f"{label}significance"), encoding="utf-8"
    )


def _write_pictures(
    folder: Path,
    config: RunConfig,
    scored: Sequence[Field],
    summary: dict[str, list[Row]],
    tests: dict[str, list[Row]],
) -> None:
    # With one benchmark all together is that one again.
    shown = scored if len(scored) > 2 else scored[:1]
    drawn = write_charts(folder, [Picture(field, summary[field.benchmark]) for field in shown])
    parts = [
        Part(
            field.benchmark,
            summary[field.benchmark],
            tests[field.benchmark],
            [chart for chart in drawn if chart.benchmark == field.benchmark],
        )
        for field in shown
    ]
    (folder / REPORT_FILE).write_text(report(config, parts), encoding="utf-8")
