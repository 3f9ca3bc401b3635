from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from loadtest.bench import __main__ as bench
from loadtest.bench.mesh import cluster
from loadtest.bench.report import Report, at_least, at_most, rounds_within, show


def report(*, value: float) -> Report:
    return Report(
        bench="fake",
        raw={"ratio": {"1": value, "2": 0.5}, "count": 3},
        targets=(at_least("ratio", value, 0.95), at_most("memory_mb", 10.0, 250.0)),
    )


@pytest.fixture
def value(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The figure that the bench `fake` reports, for the test to change."""
    figure = [1.0]
    module = ModuleType("fake_bench")
    module.run = lambda: report(value=figure[0])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_bench", module)
    monkeypatch.setitem(bench.BENCHES, "fake", "fake_bench")
    monkeypatch.setattr("psutil.getloadavg", lambda: (0.1, 0.1, 0.1))
    return figure


def test_a_target_is_met_in_its_own_direction() -> None:
    assert at_least("speed", 0.95, 0.95).met and not at_least("speed", 0.94, 0.95).met
    assert at_most("memory", 5, 5).met and not at_most("memory", 5.1, 5).met
    assert not at_least("speed", float("nan"), 0.95).met


def test_json_is_one_document_with_machine_versions_figures_and_targets(
    value: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["fake", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["machine"]["cores"] >= 1 and document["machine"]["cpu"]
    assert document["versions"]["llama-cpp-python"]
    assert document["raw"]["ratio"]["1"] == 1.0
    assert document["targets"][0] == {
        "name": "ratio",
        "value": 1.0,
        "comparison": ">=",
        "target": 0.95,
        "met": True,
    }


def test_a_missed_target_fails_only_where_it_is_checked(
    value: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    value[0] = 0.9
    assert bench.main(["fake", "--json"]) == 0
    assert bench.main(["fake", "--json", "--check"]) == 1
    value[0] = 0.99
    assert bench.main(["fake", "--json", "--check"]) == 0


def test_figures_of_a_busy_machine_do_not_count(
    value: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (64.0 * (os.cpu_count() or 1), 0.1, 0.1))
    assert bench.main(["fake", "--json", "--check"]) == 1
    said = capsys.readouterr()
    assert "do not count" in said.err and json.loads(said.out)["quiet"] is False
    assert bench.main(["fake"]) == 0
    assert "do not count" in capsys.readouterr().out


def test_an_unknown_bench_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["nosuch"]) == 2
    error = capsys.readouterr().err
    assert "nosuch" in error and "engine" in error and "overhead" in error


def test_a_person_reads_a_table() -> None:
    output = io.StringIO()
    show(report(value=0.5), Console(file=output, width=120))
    text = output.getvalue()
    assert "not met" in text and ">= 0.95" in text and "ratio 2" in text


def test_a_bench_of_the_cluster_that_takes_too_long_says_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def slow(_folder: Path, steps: cluster.Steps, _deadline: asyncio.Timeout) -> dict[str, float]:
        steps.begin("start")
        steps.begin("rates")
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(cluster, "_measure", slow)
    monkeypatch.setattr(cluster, "DEADLINE_S", 0.05)
    assert bench.main(["cluster", "--json"]) == bench.NOT_DONE
    told = capsys.readouterr()
    assert told.out == "" and "while it was at: rates; done were: start" in told.err


def test_rounds_are_begun_as_long_as_the_longest_would_end_in_time() -> None:
    """Rounds of 10, 40 and 20 s end after 70 s: another one of 40 would not end within 100."""
    moments = iter((0.0, 0.0, 10.0, 10.0, 50.0, 50.0, 70.0, 70.0))
    assert list(rounds_within(100.0, most=5, clock=lambda: next(moments))) == [0, 1, 2]
    # However long it takes, there is one; and there are no more than are wanted
    assert list(rounds_within(-1.0, most=5)) == [0]
    assert list(rounds_within(1e9, most=2)) == [0, 1]
