"""Runs of benchmarks, each in a process of its own on a machine at rest, and their reports as files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import ValidationError

from infra.docs.measured import bench_of
from loadtest.bench.report import QUIET_SHARE, ROOT, Report
from loadtest.faults import LoadtestError
from loadtest.measured.places import parts_of

BENCH = "loadtest.bench"
AT_REST = 0.8
"""Of the load at which figures still count: a process that starts adds some."""
LOOK_S = 2.0


def at_rest(within_s: float, tell: Callable[[str], None]) -> bool:
    """Waits until the load has fallen, for that of the bench before counts for minutes. False if it has not
    within so many seconds."""
    most = AT_REST * QUIET_SHARE * (os.cpu_count() or 1)
    until_s = time.monotonic() + within_s
    told = False
    while (load := psutil.getloadavg()[0]) > most:
        if time.monotonic() >= until_s:
            return False
        if not told:
            tell(f"the load is {load:.2f}: waiting until it is {most:g}, at most {within_s:g} s")
            told = True
        time.sleep(LOOK_S)
    return True


def run(place: str, folder: Path) -> Report:
    """The report of a place's bench, kept in `folder` as well. LoadtestError if there is none; the bench has
    said why on standard error."""
    command = [sys.executable, "-m", BENCH, bench_of(place), "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | parts_of(place), stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise LoadtestError(f"{place}: its bench ended with exit code {done.returncode}")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{place.replace('/', '.')}.json"
    kept.write_text(done.stdout)
    return read(kept)


def read(path: Path) -> Report:
    """A report that was printed by `--json`. LoadtestError if it is none."""
    try:
        document = json.loads(path.read_text())
        document.pop("quiet", None)
        for target in document["targets"]:
            target.pop("met", None)
        return Report.model_validate(document)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise LoadtestError(f"{path} is no report of a bench, as --json prints one: {why}") from error
