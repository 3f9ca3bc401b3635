"""What the demo models have seen in training is said wherever figures of Choir's own sets are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.charts.evaluation import CHARTS
from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.journal import EvalJournal
from analysis.evaluation.reporting.outputs import write_outputs
from analysis.evaluation.reporting.shown import show
from analysis.evaluation.tests.kept import CHOICES, exchange, run_folder

OWN, SEEN = "choir-mmlu", "answers seen in training"
WAYS = {OWN: "flexible"}
STRATEGIES = ("majority", "weighted", "auto")
TABLES = {"raw_records", "decisions", "summary", "significance", "effort", "auto", "orders", "spread"}
AGENTS = ("one", "two", "three")


def of_an_own_set() -> list[Exchange]:
    """Eight questions, asked twice, on two topics."""
    return [
        exchange(
            n, "A", {agent: CHOICES[(n // 2 // (1 + i)) % 2] for i, agent in enumerate(AGENTS)},
            question=f"q{n // 2}", repetition=n % 2, benchmark=OWN, topic=f"topic {n // 8}",
        ).model_copy(update={"order": n % 2, "prompt_name": "options"})
        for n in range(16)
    ]  # fmt: skip


def test_every_table_and_chart_says_it_and_so_do_both_pages_and_latex(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path, AGENTS, (OWN,), STRATEGIES)
    folder.config = folder.config.model_copy(
        update={"options": folder.config.options.model_copy(update={"effort": True, "orders": 2})}
    )
    kept = of_an_own_set()
    with EvalJournal(folder.journal) as journal:
        for each in kept:
            journal.keep(each.request_id, each)
    write_outputs(folder)
    tables = {path.stem: json.loads(path.read_text()) for path in folder.path.glob("*.json")}
    del tables["config"]
    assert tables.keys() >= TABLES
    for name, rows in tables.items():
        assert {row["seen_in_training"] for row in rows} == {SEEN}, name
    charts = list(folder.path.glob("charts/*.svg"))
    assert {path.stem.removeprefix(f"{OWN}-") for path in charts} == CHARTS.keys()
    for path in (*charts, *folder.path.glob("*.tex"), *folder.path.glob("*.html")):
        assert SEEN in path.read_text(), path.name
    # Greedy repetitions that say the same are warned of, too
    show(folder, as_json=False)
    for told in (capsys.readouterr().out, (folder.path / "report.html").read_text()):
        assert f"{OWN}: 100" in told
        assert "of the answers in later repetitions are the text of the first" in told
