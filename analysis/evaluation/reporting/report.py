"""The report of a run: one page that a person can read offline, with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from analysis.charts.drawing.page import templates
from analysis.charts.evaluation.write import Drawn
from analysis.evaluation import benchmarks
from analysis.evaluation.asking.run_folder import RunConfig
from analysis.evaluation.contestants.crossfit import FOLDS
from analysis.evaluation.contestants.replay import CLOSED_ONLY
from analysis.evaluation.scoring.scores import OVERALL

Row = dict[str, Any]

TEMPLATE = "report.html.j2"
NOTHING = "–"
MOSTLY_REPEATED = 0.9


@dataclass(frozen=True)
class Section:
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


SEEN = Column("seen in training", lambda row: row["seen_in_training"] or NOTHING)

SUMMARY = (
    Column("learns from", lambda row: row["learns_from"]),
    Column("accuracy", lambda row: percent(row["accuracy"])),
    Column("macro", lambda row: percent(row["macro_accuracy"])),
    Column("95 % Wilson, in %", lambda row: interval(row["wilson_low"], row["wilson_high"])),
    Column("95 % clustered, in %", lambda row: interval(row["clustered_low"], row["clustered_high"])),
    Column("the same by topic", lambda row: interval(row["by_topic_low"], row["by_topic_high"])),
    Column("by template", lambda row: interval(row["by_template_low"], row["by_template_high"])),
    Column("F1", lambda row: number(row["f1"], 3)),
    Column("seconds, mean", lambda row: number(row["latency_mean_s"], 3)),
    Column("sd", lambda row: number(row["latency_sd_s"], 3)),
    Column("p50", lambda row: number(row["latency_p50_s"], 3)),
    Column("p95", lambda row: number(row["latency_p95_s"], 3)),
    Column("tokens", lambda row: number(row["tokens_per_question"])),
    Column("calls", lambda row: number(row["calls_per_question"], 1)),
    Column("unread", lambda row: number(row["extraction_failures"])),
    Column("missing", lambda row: number(row["missing_answers"])),
    Column("ties", lambda row: number(row["ties"])),
    Column("the mesh otherwise", lambda row: number(row.get("mesh_otherwise"))),
    Column("same as", lambda row: row["same_as"] or NOTHING),
    Column("smallest difference", lambda row: percent(row["smallest_difference"])),
    Column("ECE of the share", lambda row: number(row.get("ece_share"), 3)),
    Column("ECE of the confidence", lambda row: number(row.get("ece"), 3)),
    Column("risk, mean over coverages", lambda row: number(row.get("aurc"), 3)),
    Column("accuracy at 80 %", lambda row: percent(row.get("accuracy_at_80"))),
    Column("at 50 %", lambda row: percent(row.get("accuracy_at_50"))),
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


EFFORT = (
    Column("voters", lambda row: f"{row['members']} {row['voters']}"),
    Column("strategy", lambda row: row["strategy"]),
    Column("effort", lambda row: row["effort"]),
    Column("ε", lambda row: percent(row["epsilon"])),
    Column("calls", lambda row: number(row["calls_per_question"], 2)),
    Column("calls saved", lambda row: percent(row["saved_calls"])),
    Column("tokens saved", lambda row: percent(row["saved_tokens"])),
    Column("waves", lambda row: number(row["waves_per_question"], 2)),
    Column("questions changed", lambda row: f"{row['changed']} of {row['n_questions']}"),
    Column("95 % Clopper-Pearson, in %", lambda row: interval(row["changed_low"], row["changed_high"])),
    Column("mean bound", lambda row: percent(row["mean_bound"])),
    Column("accuracy", lambda row: percent(row["accuracy"])),
    Column("of all", lambda row: percent(row["accuracy_of_all"])),
    SEEN,
)


AUTO = (
    Column("questions", lambda row: number(row["n_questions"])),
    Column("one agent", lambda row: number(row["single"])),
    Column("cascade", lambda row: number(row["cascade"])),
    Column("all", lambda row: number(row["full"])),
    Column("auto is right on", lambda row: percent(row["accuracy"])),
    Column("the best agent on", lambda row: percent(row["accuracy_of_best"])),
    Column("95 % one-sided, in %", lambda row: interval(row["lower_bound"], row["upper_bound"])),
    Column("auto is", lambda row: row["verdict"]),
    Column("tokens", lambda row: number(row["tokens_per_question"])),
    Column("times the best agent's", lambda row: number(row["tokens_beside_best"], 2)),
    SEEN,
)


LIKELIHOOD = (
    Column("agent", lambda row: row["agent"]),
    Column("questions", lambda row: number(row["n_questions"])),
    Column("acc (mc1)", lambda row: percent(row["acc"])),
    Column("95 % Wilson, in %", lambda row: interval(row["acc_low"], row["acc_high"])),
    Column("acc_norm", lambda row: percent(row["acc_norm"])),
    Column("95 % Wilson, in %", lambda row: interval(row["acc_norm_low"], row["acc_norm_high"])),
    Column("mc2", lambda row: percent(row["mc2"])),
    Column("95 % clustered, in %", lambda row: interval(row["mc2_low"], row["mc2_high"])),
    Column("log-likelihood of the right one", lambda row: number(row["log_likelihood_of_right"], 2)),
    Column("not complete", lambda row: number(row["incomplete"])),
    SEEN,
)

SPREAD = (
    Column("contestant", lambda row: row["contestant"]),
    Column("accuracy", lambda row: percent(row["accuracy"])),
    Column("prompts", lambda row: number(row["prompts"])),
    Column(
        "lowest to highest, in %", lambda row: interval(row["lowest_of_prompts"], row["highest_of_prompts"])
    ),
    Column("sd between prompts", lambda row: percent(row["sd_between_prompts"])),
    Column("orders of options", lambda row: number(row["orders"])),
    Column(
        "lowest to highest, in %", lambda row: interval(row["lowest_of_orders"], row["highest_of_orders"])
    ),
    Column("sd between orders", lambda row: percent(row["sd_between_orders"])),
    SEEN,
)

ORDERS = (
    Column("contestant", lambda row: row["contestant"]),
    Column("learns from", lambda row: row["learns_from"]),
    Column("orders", lambda row: number(row["orders"])),
    Column("in the run's own", lambda row: percent(row["accuracy_in_own_order"])),
    Column("mean over orders", lambda row: percent(row["accuracy"])),
    Column("sd", lambda row: percent(row["sd_between_orders"])),
    Column("lowest to highest, in %", lambda row: interval(row["lowest"], row["highest"])),
    Column("decided otherwise in some order", lambda row: percent(row["decided_otherwise"])),
    SEEN,
)


class Extras(NamedTuple):
    """The rows of tables that not every run has: `effort_rows`, `held_out_rows`, `likelihood_rows`,
    `order_rows` and `spread_rows`."""

    efforts: Sequence[Row] = ()
    auto: Sequence[Row] = ()
    likelihood: Sequence[Row] = ()
    orders: Sequence[Row] = ()
    spread: Sequence[Row] = ()


NO_EXTRAS = Extras()


def report(config: RunConfig, sections: Sequence[Section], extras: Extras = NO_EXTRAS) -> str:
    """The page as HTML."""
    environment = templates(Path(__file__).parent)
    environment.filters["filename"] = lambda location: location.rsplit("/", 1)[-1]
    return environment.get_template(TEMPLATE).render(
        config=config,
        sections=sections,
        folds=FOLDS,
        summary_columns=SUMMARY,
        significance_columns=SIGNIFICANCE,
        tables=[
            (name, columns, rows)
            for name, columns, rows in (
                ("likelihood", LIKELIHOOD, extras.likelihood),
                ("spread", SPREAD, extras.spread),
                ("orders", ORDERS, extras.orders),
                ("effort", EFFORT, extras.efforts),
                ("auto", AUTO, extras.auto),
            )
            if rows
        ],
        remarks=[*_remarks(config), *_repeated(sections)],
    )


def _repeated(sections: Sequence[Section]) -> list[str]:
    """A warning for each benchmark whose repetitions hardly tell anything that the first one did not."""
    return [
        f"{section.benchmark}: {percent(share)} of the answers in later repetitions are the text of the "
        "first one, letter by letter: these repetitions cost as much and tell little."
        for section in sections
        if (share := section.summary[0]["repeated_texts"]) is not None and share > MOSTLY_REPEATED
    ]


def _remarks(config: RunConfig) -> list[str]:
    """What else a reader of these figures has to know."""
    remarks = []
    if any(name in benchmarks.OWN for name in config.benchmarks):
        remarks.append(
            "The sets choir-... are Choir's own, not the public benchmarks. The demo models' training text "
            "has the facts that choir-mmlu and choir-truthfulqa ask about: with these models it is recall "
            "that is scored. Only choir-held-out is of nothing that was in it."
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
