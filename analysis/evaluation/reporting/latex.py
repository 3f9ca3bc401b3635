"""LaTeX tables in IEEE's two-column style: booktabs, nothing else, and no package for numbers.

Each benchmark has a `table*` that spans both columns; a file is read with `\\input`, and its document needs
`\\usepackage{booktabs}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_NO_LABEL = re.compile(r"[^A-Za-z0-9]+")
MINUS = "$-$"
NOTHING = "--"
SMALLEST_P = 0.001
LEARNS = {
    "nothing": NOTHING,
    "agreement": "agreement",
    "agreement of all": "agr. of all",
    "labels before": "labels",
    "labels of other folds": "folds",
    "the answer": "answer",
}
"""Short forms of what contestants learn from: labels are those of earlier questions."""
MOST_ROWS = 60
"""As many fit on a page."""


@dataclass(frozen=True)
class Column:
    """A heading, how the cell is made from a row, and whether it stands on the left or the right."""

    heading: str
    cell: Callable[[Row], str]
    align: str = "r"


def escape(text: object) -> str:
    """A text as LaTeX prints it."""
    return "".join(_SPECIAL.get(char, char) for char in str(text))


def number(value: float | None, digits: int) -> str:
    """A number with so many digits after the point; a dash where there is none."""
    if value is None:
        return NOTHING
    said = f"{value:.{digits}f}"
    if float(said) == 0:
        said = said.removeprefix("-")
    return said.replace("-", MINUS)


def percent(value: float | None) -> str:
    """`85.0` for .85: the heading says that it is percent."""
    return number(None if value is None else 100 * value, 1)


def interval(low: float | None, high: float | None) -> str:
    """`[67.9, 94.8]`, in percent."""
    return NOTHING if low is None or high is None else f"[{percent(low)}, {percent(high)}]"


def p_value(p: float | None) -> str:
    """`.077`, `<.001`: as IEEE and APA write what cannot be greater than 1."""
    if p is None:
        return NOTHING
    if p < SMALLEST_P:
        return f"$<${SMALLEST_P:.3f}".replace("0.", ".")
    return f"{p:.3f}".replace("0.", ".", 1) if p < 1 else "1.000"


SUMMARY_COLUMNS = (
    Column("Contestant", lambda row: escape(row["contestant"]), "l"),
    Column("Learns from", lambda row: LEARNS[row["learns_from"]], "l"),
    Column(r"Acc. (\%)", lambda row: percent(row["accuracy"])),
    Column("Macro", lambda row: percent(row["macro_accuracy"])),
    Column(r"Wilson 95\,\%", lambda row: interval(row["wilson_low"], row["wilson_high"])),
    Column(r"Clustered 95\,\%", lambda row: interval(row["clustered_low"], row["clustered_high"])),
    Column("F1", lambda row: number(row["f1"], 3)),
    Column("Latency (s)", lambda row: _spread(row["latency_mean_s"], row["latency_sd_s"])),
    Column("p95 (s)", lambda row: number(row["latency_p95_s"], 3)),
    Column("Tokens", lambda row: number(row["tokens_per_question"], 0)),
    Column("Calls", lambda row: number(row["calls_per_question"], 1)),
    Column("Unread", lambda row: str(row["extraction_failures"] + row["missing_answers"])),
    Column("Ties", lambda row: str(row["ties"])),
    Column(r"$\delta_{\min}$", lambda row: percent(row["smallest_difference"])),
)

SIGNIFICANCE_COLUMNS = (
    Column("One", lambda row: escape(row["one"]), "l"),
    Column("Other", lambda row: escape(row["other"]), "l"),
    Column(r"Diff. (\%)", lambda row: percent(row.get("difference"))),
    Column(r"BCa 95\,\%", lambda row: interval(row.get("bca_low"), row.get("bca_high"))),
    Column("$+$/$-$", lambda row: _counts(row.get("one_better_on"), row.get("other_better_on"))),
    Column("Perm. $p$", lambda row: p_value(row.get("permutation_p"))),
    Column("Holm", lambda row: p_value(row.get("permutation_p_holm"))),
    Column("By topic", lambda row: p_value(row.get("permutation_p_by_topic"))),
    Column("TOST", lambda row: p_value(row.get("equivalence_p_holm"))),
    Column("$Q$", lambda row: p_value(row.get("cochrans_q_p"))),
    Column("Cliff's $d$", lambda row: number(row.get("cliffs_delta"), 2)),
    Column(r"$\delta_{\min}$", lambda row: percent(row.get("smallest_difference"))),
    Column("Verdict", lambda row: escape(row.get("verdict") or NOTHING), "l"),
)


def summary_table(rows: Sequence[Row], label: str) -> str:
    """The tables of a summary, one for each benchmark."""
    caption = (
        "Accuracy and cost: {title}. The unit is the question; repetitions are clustered. Latency leaves "
        "queues out; that of samples of one agent, asked under another load, is not compared. "
        "Learns from: labels of earlier questions, or of other folds; agreement of agents, without labels. "
        "Ties are scored with their expected value over lots; macro: the mean over topics, or benchmarks. "
        r"Tokens, calls: per question. $\delta_{\min}$: the smallest difference to the first "
        "row, in percent points, that so many questions show with a power of "
        r"80\,\% at the level of the family of all pairs."
    )
    return _tables(rows, SUMMARY_COLUMNS, caption, label)


def significance_table(rows: Sequence[Row], label: str) -> str:
    """The tables of the tests, one for each benchmark."""
    caption = (
        "Paired comparisons by question: {title}. $+$/$-$: questions on which the one or the other is "
        "better. The primary test flips the signs of the questions' mean differences over all repetitions, "
        "Holm is its $p$ adjusted over the family; by topic: all questions of a topic get one sign. "
        "Cochran's $Q$ sees the first repetition. Tied: shown by TOST to be within 5 points; "
        r"$\delta_{\min}$ is of the family's level."
    )
    return _tables(rows, SIGNIFICANCE_COLUMNS, caption, label)


def _tables(rows: Sequence[Row], columns: Sequence[Column], caption: str, label: str) -> str:
    """A table for each benchmark, and more of them where one would be longer than a page."""
    tables = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        of_one = [row for row in rows if row["benchmark"] == benchmark]
        for start in range(0, len(of_one), MOST_ROWS):
            said = caption.replace("{title}", escape(_title(of_one[0])))
            if start:
                said = f"{escape(benchmark)}, continued."
            name = f"{label}:{_NO_LABEL.sub('-', benchmark)}"
            name += f":{start // MOST_ROWS + 1}" if start else ""
            tables.append(_table(of_one[start : start + MOST_ROWS], columns, said, name))
    return "\n".join(tables)


def _title(row: Row) -> str:
    said = f"{row['benchmark']}, {row['n_questions']} questions"
    said = f"{said}, {row['n_samples']} samples" if "n_samples" in row else said
    return f"{said} ({seen})" if (seen := row.get("seen_in_training")) else said


def _table(rows: Sequence[Row], columns: Sequence[Column], caption: str, label: str) -> str:
    lines = [
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{2pt}",
        rf"\begin{{tabular}}{{@{{}}{''.join(column.align for column in columns)}@{{}}}}",
        r"\toprule",
        " & ".join(column.heading for column in columns) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(column.cell(row) for column in columns) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def _spread(mean: float | None, sd: float | None) -> str:
    return number(mean, 3) if sd is None else f"{number(mean, 3)} $\\pm$ {number(sd, 3)}"


def _counts(one: int | None, other: int | None) -> str:
    return NOTHING if one is None or other is None else f"{one}/{other}"
