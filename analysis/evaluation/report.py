"""The report of a run: one page that a person can read offline, with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from analysis.evaluation import benchmarks
from analysis.evaluation.charts.write import Drawn
from analysis.evaluation.crossfit import FOLDS
from analysis.evaluation.replay import CLOSED_ONLY
from analysis.evaluation.run_folder import RunConfig
from analysis.evaluation.scores import OVERALL
from analysis.evaluation.summary import compared

Row = dict[str, Any]

TEMPLATE = "report.html.j2"
NOTHING = "–"
MOSTLY_REPEATED = 0.9


@dataclass(frozen=True)
class Part:
    """One benchmark, or all together: its tables and its charts."""

    benchmark: str
    summary: Sequence[Row]
    significance: Sequence[Row]
    charts: Sequence[Drawn]

    @property
    def title(self) -> str:
        """Its heading."""
        first = self.summary[0]
        name = "All benchmarks together" if self.benchmark == OVERALL else self.benchmark
        seen = f"; {first['seen_in_training']}" if first["seen_in_training"] else ""
        return f"{name}: {first['n_questions']} questions, {first['n_samples']} samples{seen}"


@dataclass(frozen=True)
class Column:
    """A heading, and the text of the cell of a row."""

    heading: str
    cell: Callable[[Row], str]


def percent(value: float | None) -> str:
    """`85.0 %`"""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """`67.9 to 94.8`, in percent"""
    return NOTHING if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def number(value: float | None, digits: int = 0) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def p_value(p: float | None) -> str:
    """`0.077`, `<0.001`"""
    if p is None:
        return NOTHING
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


SUMMARY = (
    Column("learns from", lambda row: row["learns_from"]),
    Column("accuracy", lambda row: percent(row["accuracy"])),
    Column("macro", lambda row: percent(row["macro_accuracy"])),
    Column("95 % Wilson, in %", lambda row: interval(row["wilson_low"], row["wilson_high"])),
    Column("95 % clustered, in %", lambda row: interval(row["clustered_low"], row["clustered_high"])),
    Column("the same by topic", lambda row: interval(row["by_topic_low"], row["by_topic_high"])),
    Column("by template", lambda row: interval(row["by_template_low"], row["by_template_high"])),
    Column("F1", lambda row: number(row["f1"], 3)),
    Column("seconds, mean", lambda row: number(compared(row, "latency_mean_s"), 3)),
    Column("sd", lambda row: number(compared(row, "latency_sd_s"), 3)),
    Column("p50", lambda row: number(compared(row, "latency_p50_s"), 3)),
    Column("p95", lambda row: number(compared(row, "latency_p95_s"), 3)),
    Column("tokens", lambda row: number(row["tokens_per_question"])),
    Column("calls", lambda row: number(row["calls_per_question"], 1)),
    Column("unread", lambda row: number(row["extraction_failures"])),
    Column("missing", lambda row: number(row["missing_answers"])),
    Column("ties", lambda row: number(row["ties"])),
    Column("same as", lambda row: row["same_as"] or NOTHING),
    Column("smallest difference", lambda row: percent(row["smallest_difference"])),
    Column("agents agree", lambda row: percent(row["agreement_rate"])),
    Column("CPU %", lambda row: number(row["cpu_percent"])),
    Column("GPU %", lambda row: number(row["gpu_percent"])),
)

SIGNIFICANCE = (
    Column("difference", lambda row: percent(row.get("difference"))),
    Column("95 % BCa, in %", lambda row: interval(row.get("bca_low"), row.get("bca_high"))),
    Column("one better on", lambda row: number(row.get("one_better_on"))),
    Column("other better on", lambda row: number(row.get("other_better_on"))),
    Column("permutation p", lambda row: p_value(row.get("permutation_p"))),
    Column("Holm", lambda row: p_value(row.get("permutation_p_holm"))),
    Column("by topic", lambda row: p_value(row.get("permutation_p_by_topic"))),
    Column("by template", lambda row: p_value(row.get("permutation_p_by_template"))),
    Column("equivalence p, Holm", lambda row: p_value(row.get("equivalence_p_holm"))),
    Column("McNemar p, first repetition", lambda row: p_value(row.get("mcnemar_p"))),
    Column("t p", lambda row: p_value(row.get("t_p"))),
    Column("Wilcoxon p", lambda row: p_value(row.get("wilcoxon_p"))),
    Column("Cochran's Q p", lambda row: p_value(row.get("cochrans_q_p"))),
    Column("Cliff's δ", lambda row: number(row.get("cliffs_delta"), 2)),
    Column("rank biserial", lambda row: number(row.get("rank_biserial"), 2)),
    Column("smallest difference", lambda row: percent(row.get("smallest_difference"))),
    Column("verdict", lambda row: row.get("verdict") or NOTHING),
)


def report(config: RunConfig, parts: Sequence[Part]) -> str:
    """The page as HTML."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["filename"] = lambda location: location.rsplit("/", 1)[-1]
    return environment.get_template(TEMPLATE).render(
        config=config,
        parts=parts,
        folds=FOLDS,
        summary_columns=SUMMARY,
        significance_columns=SIGNIFICANCE,
        remarks=[*_remarks(config), *_repeated(parts)],
    )


def _repeated(parts: Sequence[Part]) -> list[str]:
    """A warning for each benchmark whose repetitions hardly tell anything that the first one did not."""
    return [
        f"{part.benchmark}: {percent(share)} of the answers in later repetitions are the text of the first "
        f"one, letter by "
        "letter: these repetitions cost as much and tell little."
        for part in parts
        if (share := part.summary[0]["repeated_texts"]) is not None and share > MOSTLY_REPEATED
    ]


def _remarks(config: RunConfig) -> list[str]:
    """What else a reader of these figures has to know."""
    remarks = []
    if any(name in benchmarks.OWN for name in config.benchmarks):
        remarks.append(
            "The sets choir-... are Choir's own, not the public benchmarks. The demo models' training text "
            "has the facts that choir-mmlu and choir-truthfulqa ask about: with these models it is recall "
            "that is scored, and nothing is held out."
        )
    if CLOSED_ONLY.intersection(config.options.strategies):
        remarks.append(
            f"{', '.join(sorted(CLOSED_ONLY))} decides closed questions only, and stands in no table that "
            "has open ones."
        )
    if config.options.deterministic and config.options.repetitions > 1:
        remarks.append(
            "Decoding is greedy: repetitions of a closed question differ in the order of its options, and "
            "repetitions of an open one are the same prompt again."
        )
    return remarks
