"""`just measured`: from a report to the tables of a README."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from infra.docs import readmes
from loadtest.bench.report import Machine, Report, at_least, at_most, commit
from loadtest.measured import __main__ as measured
from loadtest.measured import runs
from loadtest.measured.figures import figure_tables

DOCS = Typer()
DOCS.command()(readmes.main)

README = """# Bakery

<!-- subjects:begin -->
<!-- subjects:end -->
Before.

<!-- measured:quick:begin -->
Eleven loaves by hand.
<!-- measured:quick:end -->

Why that is so: <!-- measured:oven/heat:begin -->
<!-- measured:oven/heat:end -->
<!-- measured:broken:begin -->
None.
<!-- measured:broken:end -->
After.
"""
MACHINE = Machine(
    cpu="AMD EPYC 7763", cores=2, memory_gb=25.2, system="Linux x86_64", python="3.11.7", load_1m=1.9
)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A main README with three places, and the table of the benchmarks that they name."""
    (tmp_path / "README.md").write_text(README)
    table = tmp_path / "loadtest" / "bench" / "__main__.py"
    table.parent.mkdir(parents=True)
    table.write_text('BENCHES = {"quick": "a", "oven": "b", "broken": "c"}\n')
    monkeypatch.setattr(measured, "KEPT", tmp_path / "results")
    return tmp_path


def report(load: float = 0.4, **fields: object) -> Report:
    """A report of the bench `quick`, two targets, of which one is missed."""
    whole = {
        "bench": "quick",
        "machine": MACHINE,
        "raw": {"tokens_per_s": {"1": 24.71, "16": 1079.5}, "ratio": {"1": 1.0, "16": 0.951}, "rounds": 8},
        "targets": (at_least("ratio_16", 0.951, 0.9), at_most("memory_mb", 285.0, 250.0)),
        "notes": ("medians of rounds",),
        "load_before_1m": load,
        "day": "2026-11-23",
        "commit": "abc1234",
    }
    return Report.model_validate(whole | fields)


def kept(folder: Path, one: Report, name: str = "report.json") -> str:
    """A report as `just bench NAME --json` prints it; the path."""
    path = folder / name
    path.write_text(one.model_dump_json(indent=2))
    return str(path)


def between(root: Path, place: str) -> str:
    """What stands in a place."""
    text = (root / "README.md").read_text()
    return text.split(f"<!-- measured:{place}:begin -->\n")[1].split(f"\n<!-- measured:{place}:end -->")[0]


def test_a_report_is_written_where_its_markers_are_and_the_rest_of_the_page_stays(repository: Path) -> None:
    file = kept(repository, report())
    assert measured.main(["--from", file, "--root", str(repository)]) == 0
    told, *tables = between(repository, "quick").split("\n\n")
    assert told == (
        "Written by `just measured quick` on 2026-11-23, commit abc1234: AMD EPYC 7763, 2 cores, 25.2 GB, "
        "Linux x86_64, Python 3.11.7; load 0.4 before, 1.9 after."
    )
    assert tables == [
        "| target | measured | aim |  |\n| --- | --- | --- | --- |\n"
        "| ratio 16 | 0.951 | at least 0.9 | met |\n| memory mb | 285 | at most 250 | **missed** |",
        "| figure | measured |\n| --- | --- |\n| rounds | 8 |",
        "|  | tokens per s | ratio |\n| --- | --- | --- |\n| 1 | 24.7 | 1 |\n| 16 | 1,080 | 0.951 |",
        "Medians of rounds.",
    ]
    head, _, rest = README.partition("Eleven loaves by hand.")
    text = (repository / "README.md").read_text()
    assert text.startswith(head) and text.endswith(rest)


def test_measured_tables_are_left_alone_by_the_check_of_what_is_generated(repository: Path) -> None:
    assert CliRunner().invoke(DOCS, ["--root", str(repository)]).exit_code == 0
    assert measured.main(["--from", kept(repository, report()), "--root", str(repository)]) == 0
    before = (repository / "README.md").read_text()
    for arguments in (["--check"], []):
        found = CliRunner().invoke(DOCS, [*arguments, "--root", str(repository)])
        assert (found.exit_code, found.output) == (0, "all READMEs are up to date\n")
    assert (repository / "README.md").read_text() == before


def test_figures_of_a_busy_machine_are_written_only_if_that_is_wanted_and_then_it_stands_there(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--from", kept(repository, report(load=1.1)), "--root", str(repository)]
    assert measured.main(command) == 1
    assert (repository / "README.md").read_text() == README
    said = capsys.readouterr()
    assert "the load was 1.1 when this began, and 1 is the most" in said.err and "left: quick" in said.out
    assert measured.main([*command, "--anyway"]) == 0
    assert "**These figures do not count**: the load was 1.1" in between(repository, "quick")


def test_a_report_of_parts_belongs_where_these_parts_stand(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heat = report(bench="oven", settings={"CHOIR_BENCH_PARTS": "heat"})
    assert measured.main(["--from", kept(repository, heat), "--root", str(repository)]) == 0
    assert "`CHOIR_BENCH_PARTS=heat`" in between(repository, "oven/heat")
    cold = kept(repository, report(bench="oven"), "cold.json")
    assert measured.main(["--from", cold, "--root", str(repository)]) == 2
    assert (
        "no README has a place for 'oven'; name the one that is meant: oven/heat" in capsys.readouterr().err
    )
    assert measured.main(["oven/heat", "--from", cold, "--root", str(repository)]) == 0
    assert "CHOIR_BENCH_PARTS" not in between(repository, "oven/heat")


def test_what_is_no_report_and_what_has_no_place_is_named(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "list.json").write_text("[]")
    assert measured.main(["--from", str(repository / "list.json"), "--root", str(repository)]) == 1
    assert "list.json is no report of a bench" in capsys.readouterr().err
    assert measured.main(["brad", "--root", str(repository)]) == 2
    assert "no README has a place for 'brad'; there are: quick, oven/heat, broken" in capsys.readouterr().err
    assert measured.main(["oven", "--list", "--root", str(repository)]) == 0
    assert capsys.readouterr().out == "oven/heat: README.md\n"


def test_a_bench_that_fails_leaves_its_place_as_it_was_and_the_next_one_is_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "BENCH", "loadtest.tests.bench.measured_here")
    command = ["broken", "quick", "--anyway", "--wait", "0", "--root", str(repository)]
    assert measured.main(command) == 1
    said = capfd.readouterr()
    assert "the oven is cold" in said.err and "broken: its bench ended with exit code 3" in said.err
    assert "quick: written to README.md; 1 of 2 targets missed" in said.out
    assert said.out.endswith("left: broken\n")
    assert between(repository, "broken") == "None."
    assert "| answers | 42 | at least 1 | met |" in between(repository, "quick")
    # What was measured is kept: it can be written again without being measured again
    written = (repository / "README.md").read_text()
    (repository / "README.md").write_text(README)
    again = ["--from", str(repository / "results" / "quick.json"), "--anyway", "--root", str(repository)]
    assert measured.main(again) == 0
    assert (repository / "README.md").read_text() == written


def test_nothing_is_begun_on_a_machine_that_does_not_come_to_rest(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (1e6, 0.1, 0.1))
    assert measured.main(["quick", "--wait", "0", "--root", str(repository)]) == 1
    assert "quick: not begun, for the machine has not come to rest" in capsys.readouterr().err
    assert not (repository / "results").exists() and (repository / "README.md").read_text() == README


def test_a_report_tells_the_commit_and_whether_more_than_documents_differ_from_it(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    for name in ("README.md", "oven.py"):
        (tmp_path / name).write_text("1\n")
    git("add", "README.md", "oven.py")
    git("commit", "--no-verify", "-m", "first")
    head = commit(tmp_path)
    assert len(head) >= 7 and " " not in head
    (tmp_path / "README.md").write_text("2\n")
    assert commit(tmp_path) == head
    (tmp_path / "oven.py").write_text("2\n")
    assert commit(tmp_path) == f"{head} with changes"


def test_figures_of_the_same_things_share_a_table_that_is_longer_than_wide() -> None:
    raw = {
        "ready_s": 3.8123,
        "load_before": 0.2,
        "p50_ms": {"bare": 0.25, "single": 2.4, "four": 8.9},
        "p95_ms": {"bare": 0.5, "single": 3.0, "four": 11.0},
        "ratio": {"four": 36.0},
        "moves": [{"layers": "10+14", "after_s": 42.0}, {"layers": "12+12", "after_s": 67.0}],
        "busy": {"alone": {"tokens": 60}, "rates": [1.0, 2.0], "never": None},
    }
    assert figure_tables(raw) == [
        "| figure | measured |\n| --- | --- |\n"
        "| ready s | 3.81 |\n| busy, rates | 1, 2 |\n| busy, never | - |\n| busy, alone, tokens | 60 |",
        "|  | p50 ms | p95 ms | ratio |\n| --- | --- | --- | --- |\n"
        "| bare | 0.250 | 0.500 |  |\n| single | 2.40 | 3 |  |\n| four | 8.90 | 11 | 36 |",
        "|  | moves, 1 | moves, 2 |\n| --- | --- | --- |\n| layers | 10+14 | 12+12 |\n| after s | 42 | 67 |",
    ]
    many = {f"{count} members": {"calls": count, "waves": 1.5} for count in (4, 5, 9)}
    assert figure_tables(many) == [
        "|  | calls | waves |\n| --- | --- | --- |\n"
        "| 4 members | 4 | 1.50 |\n| 5 members | 5 | 1.50 |\n| 9 members | 9 | 1.50 |"
    ]
