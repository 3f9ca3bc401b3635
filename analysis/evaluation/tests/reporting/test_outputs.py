"""Everything that a run writes: figures checked by hand, tables that compile, a page that works offline."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.charts.drawing.render import specification, svg_image
from analysis.charts.evaluation.cost import against_latency, against_tokens, overlapping, spread
from analysis.charts.evaluation.metrics import metrics
from analysis.charts.evaluation.picture import OTHER_LOAD, Picture
from analysis.evaluation.asking.journal import EvalJournal
from analysis.evaluation.asking.usage import UsageSample
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.reporting.latex import escape, p_value, summary_table
from analysis.evaluation.reporting.outputs import write_outputs
from analysis.evaluation.reporting.shown import show
from analysis.evaluation.reporting.summary import processors, summary_rows
from analysis.evaluation.reporting.tables import write_table
from analysis.evaluation.scoring.scores import Field, field
from analysis.evaluation.tests.kept import CHOICES, WAYS, exchange, run_folder
from analysis.statistics.intervals import wilson

RIGHT, WRONG = "red", "blue"
STRATEGIES = ("majority", "weighted")
BENCHMARKS = ("colours", "R&D_50%")
LATENCIES = (
    "latency_mean_s", "latency_sd_s", "latency_p50_s", "latency_p95_s", "seconds_per_question",
)  # fmt: skip
FILES = {
    "config.json",
    *(f"{table}.{ending}" for table in ("raw_records", "decisions") for ending in ("csv", "json", "parquet")),
    *(
        f"{prefix}{table}"
        for prefix in ("", "overall_")
        for table in (
            "summary.csv",
            "summary.json",
            "significance.csv",
            "significance.json",
            "summary_table.tex",
            "significance_table.tex",
        )
    ),
    "metrics.png",
    "report.html",
    "samples.html",
    "journal.jsonl",
    "usage.jsonl",
}
COLUMNS = {
    "accuracy", "wilson_low", "wilson_high", "clustered_low", "clustered_high", "f1", "latency_mean_s",
    "latency_sd_s", "latency_p50_s", "latency_p95_s", "agreement_rate", "cpu_percent", "gpu_percent",
    "tokens_per_question", "seconds_per_question", "extraction_failures", "n_questions", "n_samples",
    "smallest_difference",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two benchmarks of 10 questions, asked twice: `one` is right on 8 of them, `two` on 5, `three` on 2.

    On q9 of the first benchmark `three` says what cannot be read.
    """
    folder = run_folder(tmp_path_factory.mktemp("results"), ("one", "two", "three"), BENCHMARKS, STRATEGIES)
    with EvalJournal(folder.journal) as journal:
        for place, name in enumerate(BENCHMARKS):
            for n in range(20):
                question, unread = n % 10, n == 9 and place == 0
                said = {
                    "one": RIGHT if question < 8 else WRONG,
                    "two": RIGHT if question >= 5 else WRONG,
                    "three": "?" if unread else RIGHT if question < 2 else "green",
                }
                kept = exchange(
                    100 * place + n, "A", said, question=f"q{question}", repetition=n // 10, benchmark=name,
                    topic="even" if question % 2 else "odd",
                )  # fmt: skip
                journal.keep(kept.request_id, kept)
    folder.usage.write_text(sample("one-1", 50.0).model_dump_json() + "\n")
    write_outputs(folder)
    return folder.path


def sample(instance: str, cpu_percent: float, gpu_percent: float | None = None) -> UsageSample:
    """A moment of an agent."""
    return UsageSample(
        at_s=1.0,
        instance=instance,
        models=(instance.partition("-")[0],),
        cpu_percent=cpu_percent,
        memory_bytes=1,
        gpu_percent=gpu_percent,
    )


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    """A table of the run."""
    table: list[dict[str, Any]] = json.loads((run / f"{name}.json").read_text())
    return table


def test_all_files_are_there(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == FILES | {"charts"}
    charts = {path.name for path in (run / "charts").iterdir()}
    for chart in (
        "metrics",
        "accuracy",
        "accuracy_against_tokens",
        "accuracy_against_latency",
        "agreement",
        "topics",
    ):
        assert {f"colours-{chart}.png", f"colours-{chart}.svg", f"all-{chart}.png"} <= charts


def test_the_summary_says_what_can_be_counted_by_hand(run: Path) -> None:
    (one,) = (
        row for row in rows(run, "summary") if (row["benchmark"], row["contestant"]) == ("colours", "one")
    )
    assert one.keys() >= COLUMNS
    assert (one["n_questions"], one["n_samples"], one["accuracy"]) == (10, 20, 0.8)
    low, high = wilson(8, 10).interval or pytest.fail("ten questions have an interval")
    assert (one["wilson_low"], one["wilson_high"]) == pytest.approx((low, high))
    assert (round(low, 3), round(high, 3)) == (0.49, 0.943)
    assert (one["f1"], one["cpu_percent"], one["gpu_percent"]) == (pytest.approx(0.8), 50.0, None)
    assert (one["latency_mean_s"], one["latency_sd_s"], one["tokens_per_question"]) == (0.5, 0.0, 10)
    (three,) = (
        row for row in rows(run, "summary") if (row["benchmark"], row["contestant"]) == ("colours", "three")
    )
    assert (three["extraction_failures"], three["undecided"]) == (1, 1)
    assert three["f1"] == pytest.approx(2 * 4 / (19 + 20))
    assert one["agreement_rate"] == pytest.approx((3 / 10 + 2 / 10 + 0) / 3, abs=0.02)


def test_every_table_has_the_baselines(run: Path) -> None:
    for table in ("summary", "overall_summary"):
        names = {row["contestant"] for row in rows(run, table)}
        assert {*STRATEGIES, "one", "two", "three", "best_agent", "random", "oracle"} <= names


def test_all_benchmarks_together_count_each_question_once(run: Path) -> None:
    overall = {row["contestant"]: row for row in rows(run, "overall_summary")}
    assert (overall["one"]["n_questions"], overall["one"]["n_samples"]) == (20, 40)
    assert overall["one"]["accuracy"] == 0.8


def test_pairs_are_compared_by_question_and_never_by_sample(run: Path) -> None:
    tests = [row for row in rows(run, "significance") if row["benchmark"] == "colours"]
    everything = next(row for row in tests if row["one"] == "(all strategies)")
    assert everything["cochrans_q_p"] is not None
    pair = next(row for row in tests if (row["one"], row["other"]) == ("majority", "weighted"))
    assert pair["n_questions"] == 10
    assert pair["one_better_on"] + pair["other_better_on"] <= 10
    assert 0 <= pair["permutation_p"] <= pair["permutation_p_holm"] <= 1
    assert pair["verdict"] == "not resolved"


def test_tests_that_need_a_yes_or_a_no_see_the_first_repetition() -> None:
    kept = [
        exchange(2 * n + repetition, "A", {"one": RIGHT if (n + repetition) % 2 else WRONG},
                 question=f"q{n}", repetition=repetition)
        for n in range(4)
        for repetition in range(2)
    ]  # fmt: skip
    outcomes = reaggregate(kept, {"colours": "flexible"}, ["majority"], 0)
    one = field("colours", outcomes).named("one")
    assert one is not None
    assert one.means.tolist() == [0.5] * 4
    assert one.first_right.tolist() == [False, True, False, True]


def test_csv_json_and_parquet_have_the_same_rows_and_every_answer_with_its_prompt(run: Path) -> None:
    kept = rows(run, "raw_records")
    with (run / "raw_records.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    with duckdb.connect() as connection:
        (count, prompts, right), *_ = connection.execute(
            "SELECT count(*), count(DISTINCT prompt), sum(correct::INT) FROM read_parquet(?)",
            [str(run / "raw_records.parquet")],
        ).fetchall()
        (choices,) = connection.execute(
            "SELECT choices FROM read_parquet(?)", [str(run / "raw_records.parquet")]
        ).fetchone() or pytest.fail("there are records")
    assert len(kept) == len(listed) == count == 2 * 20 * 3
    assert [row["text"] for row in kept] == [row["text"] for row in listed]
    assert (prompts, right) == (40, 2 * 2 * (8 + 5 + 2))
    assert kept[0]["choices"] == choices == list(CHOICES) == json.loads(listed[0]["choices"])
    assert kept[0]["stop"] == ["\n"] == json.loads(listed[0]["stop"])
    assert all(row["prompt_sha256"] and row["seed"] == 7 and row["model_s"] == 0.5 for row in kept)


def test_processors_use_is_the_sum_over_agents_of_their_means() -> None:
    samples = [sample("one-1", 40.0), sample("one-1", 60.0), sample("two-1", 100.0, 30.0)]
    assert processors(samples, None) == (150.0, 30.0)
    assert processors(samples, "one") == (50.0, None)
    assert processors([], None) == (None, None)


class _Page(HTMLParser):
    """What a page would load, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            # The page with the samples lies beside it, and is only named.
            if (
                (tag, value) != ("a", "samples.html")
                and name in {"src", "href", "xlink:href"}
                and not (value or "").startswith("#")
            ):
                self.loads.append(f"{tag} {value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_page_that_loads_nothing(run: Path) -> None:
    page = _Page()
    page.feed((run / "report.html").read_text())
    assert page.loads == []
    for said in (
        "colours: 10 questions, 20 samples",
        "R&D_50%",
        "cross-fitted",
        "All benchmarks together",
        "not resolved",
        "labels of other folds",
    ):
        assert said in page.text
    assert (run / "report.html").read_text().count("<svg") == 24


def test_tables_are_booktabs_in_two_column_style_without_any_other_package(run: Path) -> None:
    for name in ("summary_table.tex", "significance_table.tex", "overall_summary_table.tex"):
        text = (run / name).read_text()
        assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == text.count(r"\toprule") >= 1
        assert r"\usepackage" not in text and "siunitx" not in text and r"\num" not in text
        columns = len(re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)[1])  # type: ignore[index]
        for line in text.splitlines():
            if line.endswith(r" \\"):
                assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
    assert r"R\&D\_50\%" in (run / "summary_table.tex").read_text()


def test_the_tables_compile(run: Path, tmp_path: Path) -> None:
    latex = shutil.which("pdflatex")
    if latex is None or not _found("booktabs.sty"):
        pytest.skip("needs pdflatex with booktabs (TeX Live)")
    ieee = _found("IEEEtran.cls") and _found("ptmr7t.tfm")
    document_class = (
        r"\documentclass[conference]{IEEEtran}" if ieee else r"\documentclass[twocolumn]{article}"
    )
    tables = [rf"\input{{{run / name}}}" for name in sorted(FILES) if name.endswith(".tex")]
    (tmp_path / "paper.tex").write_text(
        "\n".join(
            [
                document_class,
                r"\usepackage{booktabs}",
                r"\begin{document}",
                "Text.",
                *tables,
                r"\end{document}",
            ]
        )
    )
    command = [latex, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert outcome.returncode == 0, outcome.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    assert "Overfull" not in outcome.stdout


def _found(file: str) -> bool:
    look = shutil.which("kpsewhich")
    return look is not None and subprocess.run([look, file], capture_output=True, timeout=30).returncode == 0


def test_what_latex_would_take_for_a_command_is_escaped() -> None:
    assert escape(r"50% of $x_1 & {a}\b") == r"50\% of \$x\_1 \& \{a\}\textbackslash{}b"


def test_a_p_value_is_never_zero() -> None:
    assert [p_value(p) for p in (None, 0.0, 0.0004, 0.0768, 1.0)] == [
        "--",
        "$<$.001",
        "$<$.001",
        ".077",
        "1.000",
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_names_beside_a_chart_never_cover_one_another(heights: list[float]) -> None:
    step = 1 / 25
    placed = spread(heights, step, 0.0, 1.0)
    ordered = sorted(placed)
    assert all(above - below >= step - 1e-9 for below, above in pairwise(ordered))
    assert ordered[0] >= -1e-9 and ordered[-1] <= 1 + 1e-9
    by_height = [placed[i] for i in sorted(range(len(heights)), key=lambda i: heights[i])]
    assert by_height == ordered


def picture() -> Picture:
    """Two strategies at one price, a baseline that was sampled later, and an agent."""
    contestants = (
        ("majority", "strategy"), ("isp", "strategy"), ("self_consistency", "baseline"), ("one", "agent"),
    )  # fmt: skip
    rows = [
        {
            "contestant": name, "group": group, "n_questions": 36, "n_samples": 72, "f1": 0.8,
            "accuracy": 0.8 + place / 100, "wilson_low": 0.7, "wilson_high": 0.9,
            "latency_mean_s": None if name == "self_consistency" else 0.2,
            "cpu_percent": 70.0, "tokens_per_question": 25.0 * place,
        }
        for place, (name, group) in enumerate(contestants)
    ]  # fmt: skip
    return Picture(Field("colours", ()), rows)


def test_latencies_of_another_load_are_not_compared_and_the_picture_says_so() -> None:
    charts = [chart for chart in (against_latency(picture()), against_tokens(picture())) if chart is not None]
    by_time, by_tokens = (chart.to_json() for chart in charts)
    assert OTHER_LOAD in by_time and '"contestant": "self_consistency"' not in by_time
    assert OTHER_LOAD not in by_tokens and '"contestant": "self_consistency"' in by_tokens
    assert "Accuracy against seconds" in by_time and "Accuracy against tokens" in by_tokens
    for drawn in (by_time, by_tokens):  # with error bars
        assert '"field": "wilson_low"' in drawn and '"field": "wilson_high"' in drawn
    assert OTHER_LOAD in metrics(picture()).to_json()


def test_no_table_has_a_latency_of_another_load_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given questions to two agents, and samples of the best of them that were asked later, by themselves
    kept = [
        exchange(n, "A", {"one": RIGHT} if number else {"one": RIGHT, "two": WRONG}, sample=number)
        for n in range(10)
        for number in range(3)
    ]
    # When they are decided, counted, written and printed
    outcomes = reaggregate(kept, WAYS, ["majority"], 0)
    summary = summary_rows(field("colours", outcomes), [], 0)
    folder = run_folder(tmp_path, ("one", "two"), ("colours",), ("majority",))
    write_table(folder.path, "summary", summary)
    show(folder, as_json=False)
    # Then the samples have no latency in any of it, all others have one, and it is said why
    for outcome in outcomes:
        assert (outcome.latency_s is None) == (outcome.contestant == "best_single"), outcome
    for row in rows(folder.path, "summary"):
        sampled = row["contestant"] == "best_single"
        assert row["latency_load"] == ("one agent" if sampled else "all agents")
        for column in LATENCIES:
            assert (row[column] is None) == sampled, f"{column} of {row['contestant']} is {row[column]}"
    printed, latex = capsys.readouterr().out, summary_table(summary, "tab:x")
    for text, name, shown in ((printed, "best_single", 1), (latex, r"best\_single", 2)):
        (sampled, *_), (other, *_) = (
            [line for line in text.splitlines() if line.startswith(begin)] for begin in (name, "one ")
        )
        assert "0.500" not in sampled and other.count("0.500") == shown, text
    assert f"seconds without best_single: {OTHER_LOAD}" in printed


def test_the_figure_for_a_paper_has_every_measure_and_fits_into_a_column() -> None:
    drawing = svg_image(specification(metrics(picture())))
    for title in ("accuracy", "F1", "seconds a question", "processor, % of a core"):
        assert title in drawing
    width = re.search(r'width="([0-9.]+)"', drawing)
    assert width is not None and float(width[1]) <= 420


def test_names_that_would_cover_one_another_are_spread_together() -> None:
    assert overlapping([0, 100, 105, 300], [50, 60, 60, 40]) == [[0], [1, 2], [3]]
    assert overlapping([100, 0, 40], [10, 50, 70]) == [[1, 2, 0]]
