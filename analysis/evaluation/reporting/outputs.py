"""Everything that is written from the answers of a run: tables, significance, charts, LaTeX, a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.charts.evaluation import Picture
from analysis.charts.evaluation.write import write_charts
from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.run_folder import RunConfig, RunFolder
from analysis.evaluation.asking.usage import UsageSample, read_usage
from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.effort.table import effort_rows
from analysis.evaluation.likelihood.table import likelihood_rows
from analysis.evaluation.likelihood.votes import one_for_each_question
from analysis.evaluation.provenance.asking import of_earlier_runs
from analysis.evaluation.reporting.instructions import checks_texts, write_checked
from analysis.evaluation.reporting.latex import significance_table, summary_table
from analysis.evaluation.reporting.raw_records import raw_records
from analysis.evaluation.reporting.report import NO_EXTRAS, Extras, Section, report
from analysis.evaluation.reporting.samples import samples
from analysis.evaluation.reporting.summary import summary_rows
from analysis.evaluation.reporting.tables import Row, write_table
from analysis.evaluation.scoring.comparison import significance_rows
from analysis.evaluation.scoring.held_out import held_out_rows
from analysis.evaluation.scoring.information import repeated_texts
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.scoring.scores import OVERALL, Field, fields
from analysis.evaluation.variants.orders import order_rows
from analysis.evaluation.variants.spread import spread_rows, variant_rows, variants_of
from schemas.errors import InvalidRequest

REPORT_FILE, SAMPLES_FILE = "report.html", "samples.html"
TABLES = {
    "efforts": "effort",
    "auto": "auto",
    "likelihood": "likelihood",
    "orders": "orders",
    "spread": "spread",
}
"""The files of further tables: each is written if it has rows."""


def write_outputs(folder: RunFolder) -> None:
    """Writes all files of a run from its journal; InvalidRequest if nothing has been asked yet."""
    config = folder.config
    journal = read_journal(folder.journal)
    if not journal:
        raise InvalidRequest(f"resume: {folder.path} holds no answers", field="resume")
    if checks_texts(config):
        write_checked(folder, journal)
        return
    ways = {name: described["extraction"] for name, described in config.benchmarks.items()}
    exchanges = one_for_each_question(of_earlier_runs(journal), ways)
    outcomes = reaggregate(exchanges, ways, config.options.strategies, config.options.seed)
    asked = read_run(exchanges, ways)
    options = config.options
    extras = Extras(
        efforts=effort_rows(asked, options.strategies) if options.effort else [],
        auto=held_out_rows(asked, options.seed) if "auto" in options.strategies else [],
        likelihood=likelihood_rows(journal),
        orders=order_rows(asked, options.strategies, options.orders, options.seed),
    )
    write_table(folder.path, "raw_records", raw_records(journal, ways, config.models), parquet=True)
    seen = {name: seen_in_training({name}) for name in config.benchmarks}
    decisions = [outcome._asdict() | {"seen_in_training": seen[outcome.benchmark]} for outcome in outcomes]
    write_table(folder.path, "decisions", decisions, parquet=True)
    repeated = {
        name: repeated_texts([e for e in exchanges if e.benchmark == name]) for name in config.benchmarks
    }
    repeated[OVERALL] = repeated_texts(exchanges)
    (folder.path / SAMPLES_FILE).write_text(samples(config, asked, outcomes), encoding="utf-8")
    scored = fields(outcomes)
    variants = variants_of(exchanges)
    extras = extras._replace(spread=spread_rows(scored, variants))
    further = {TABLES[name]: rows for name, rows in extras._asdict().items()}
    for name, rows in (further | {"variants": variant_rows(scored, variants)}).items():
        if rows:
            write_table(folder.path, name, rows)
    write_statistics(folder.path, config, scored, read_usage(folder.usage), repeated, extras)


def write_statistics(
    folder: Path,
    config: RunConfig,
    scored: Sequence[Field],
    usage: Sequence[UsageSample],
    repeated: Mapping[str, float | None],
    extras: Extras = NO_EXTRAS,
) -> None:
    """Writes what is said of the outcomes: of each benchmark, and of all together.

    `repeated` is the share of later repetitions' texts that repeat the first one's, by benchmark.
    """
    seed = config.options.seed
    summary = {
        field.benchmark: summary_rows(field, usage, seed, repeated.get(field.benchmark)) for field in scored
    }
    tests = {field.benchmark: significance_rows(field, seed) for field in scored}
    _write_tables(folder, "overall_", summary[OVERALL], tests[OVERALL])
    _write_tables(folder, "", _each(summary), _each(tests))
    _write_pictures(folder, config, scored, summary, tests, extras)


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
    extras: Extras,
) -> None:
    # With one benchmark all together is that one again.
    shown = scored if len(scored) > 2 else scored[:1]
    drawn = write_charts(folder, [Picture(field, summary[field.benchmark]) for field in shown])
    sections = [
        Section(
            field.benchmark,
            summary[field.benchmark],
            tests[field.benchmark],
            [chart for chart in drawn if chart.benchmark == field.benchmark],
        )
        for field in shown
    ]
    (folder / REPORT_FILE).write_text(report(config, sections, extras), encoding="utf-8")
