"""Tests that need the cores run alone; the moments of faults can be repeated."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infra.testing.conditions import turn

DEADLINE_S = 180.0
PLUGINS = ("-p", "xdist", "-p", "infra.testing.conditions")


@pytest.fixture(autouse=True)
def _no_plugins_but_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the processes would import them all."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


class Turn(threading.Thread):
    """Somebody who takes a turn, and holds it until told to let go."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        super().__init__(daemon=True)
        self._folder, self._alone = folder, alone
        self.has = threading.Event()
        self.let_go = threading.Event()

    def run(self) -> None:
        with turn(self._folder, alone=self._alone):
            self.has.set()
            self.let_go.wait(DEADLINE_S)

    def end(self) -> None:
        self.let_go.set()
        self.join(DEADLINE_S)


def start(folder: Path, *, alone: bool) -> Turn:
    thread = Turn(folder, alone=alone)
    thread.start()
    return thread


def test_ordinary_tests_run_beside_one_another(tmp_path: Path) -> None:
    first, second = start(tmp_path, alone=False), start(tmp_path, alone=False)

    assert first.has.wait(DEADLINE_S) and second.has.wait(DEADLINE_S)
    first.end()
    second.end()


def test_a_test_alone_waits_for_the_others_and_who_comes_later_waits_for_it(tmp_path: Path) -> None:
    ordinary = start(tmp_path, alone=False)
    assert ordinary.has.wait(DEADLINE_S)
    alone = start(tmp_path, alone=True)
    assert not alone.has.wait(0.2)
    later = start(tmp_path, alone=False)
    assert not later.has.wait(0.2)

    ordinary.end()
    assert alone.has.wait(DEADLINE_S)
    assert not later.has.wait(0.2)

    alone.end()
    assert later.has.wait(DEADLINE_S)
    later.end()


TWO_FILES = """
import time
import pytest
from pathlib import Path

log = Path(__file__).parent / "log"

{mark}
def test_it(fault_seed):
    with log.open("a") as lines:
        lines.write("{name} begins\\n")
    time.sleep(0.3)
    with log.open("a") as lines:
        lines.write(f"{name} ends\\n")
    (Path(__file__).parent / "{name}.seed").write_text(str(fault_seed))
"""


@pytest.mark.soak
def test_in_two_processes_nothing_happens_while_a_test_is_alone(pytester: pytest.Pytester) -> None:
    for name, mark in (("one", ""), ("two", "@pytest.mark.alone"), ("three", "")):
        pytester.makepyfile(**{f"test_{name}": TWO_FILES.format(name=name, mark=mark)})
    options = (*PLUGINS, "-n", "2", "--dist", "loadfile", "--fault-seed", "7")

    first = pytester.runpytest_subprocess(*options)
    lines = (pytester.path / "log").read_text().splitlines()
    seeds = [path.read_text() for path in sorted(pytester.path.glob("*.seed"))]
    again = pytester.runpytest_subprocess(*options)

    first.assert_outcomes(passed=3)
    again.assert_outcomes(passed=3)
    assert lines[lines.index("two begins") + 1] == "two ends"
    assert seeds == [path.read_text() for path in sorted(pytester.path.glob("*.seed"))]
    assert len(set(seeds)) == 3


DEALT = """
import pytest
from pathlib import Path

{mark}
def test_it():
    with (Path(__file__).parent / "log").open("a") as lines:
        lines.write("{name}\\n")

def test_another():
    pass
"""


def test_files_with_long_tests_are_dealt_out_first(pytester: pytest.Pytester) -> None:
    for name, mark in (("one", ""), ("two", ""), ("three", "@pytest.mark.long")):
        pytester.makepyfile(**{f"test_{name}": DEALT.format(name=name, mark=mark)})
    options = (*PLUGINS, "-n", "1", "--dist", "loadfile", "--no-loadscope-reorder")

    pytester.runpytest_subprocess(*options).assert_outcomes(passed=6)

    assert (pytester.path / "log").read_text().splitlines() == ["three", "one", "two"]


def test_a_failure_names_the_seed_to_repeat_it_with(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(fault_seed): assert fault_seed < 0")

    result = pytester.runpytest_subprocess("-p", "infra.testing.conditions", "--fault-seed", "42")

    result.stdout.fnmatch_lines(["*--fault-seed 42*"])


IMPORTS = """
import subprocess
import sys

PROGRAM = "import pathlib, thing; print(pathlib.Path(thing.__cached__).exists())"

def test_it():
    told = [subprocess.check_output([sys.executable, "-c", PROGRAM], cwd={folder!r}) for _ in range(2)]
    assert told == [b"True\\n"] * 2
"""


def test_processes_of_tests_keep_bytecode_and_none_lies_beside_the_sources(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    pytester.makepyfile(thing="", test_it=IMPORTS.format(folder=str(pytester.path)))

    result = pytester.runpytest_subprocess("-p", "infra.testing.conditions")

    result.assert_outcomes(passed=1)
    assert not list(pytester.path.rglob("__pycache__"))
