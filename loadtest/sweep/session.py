"""A sweep from beginning to end: every step in a folder of its own, one page for all of them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.faults import LoadtestError
from loadtest.generate.plan import LoadPlan
from loadtest.outcome import tables
from loadtest.outcome.charts import of_sweep
from loadtest.outcome.live import say
from loadtest.outcome.measurements import Measurements
from loadtest.outcome.outputs import SUMMARY, write_config, write_results
from loadtest.outcome.page import write_page
from loadtest.outcome.summary import Summary
from loadtest.session import Session, slots_at, step_plan
from loadtest.sweep.search import Step, knee, sweep

PER_SLOT = 2
"""Requests for each slot that together show the throughput: one is worked on, one waits."""


async def run_sweep(
    session: Session, plan: LoadPlan, url: str, folder: Path, options: dict[str, Any]
) -> Summary:
    """Runs all steps and writes what came of them; the summary of the knee, or else of the last step."""
    write_config(folder, plan, options)
    done: list[str] = []

    async def run(step: LoadPlan, name: str) -> tuple[Measurements, Summary]:
        if session.interrupted:
            raise Interrupted
        number = len(done)
        done.append(name)
        place = folder / f"step-{number:02}"
        place.mkdir()
        sys.stderr.write(f"step {number + 1}: {name}\n")
        step = step_plan(step, number)
        write_config(place, step, {**options, "step": name})
        outcome = await session.run(step, folder=place)
        write_results(place, outcome.summary)
        steps_so_far.append((name, outcome.summary))
        return outcome.measured, outcome.summary

    steps_so_far: list[tuple[str, Summary]] = []
    try:
        steps = await sweep(plan, PER_SLOT * await slots_at(url, plan.ask.models), run)
    except Interrupted:
        steps = []
    return _written(folder, steps, steps_so_far, quiet=bool(options["json"]))


class Interrupted(LoadtestError):
    """Raised between two steps once Ctrl-C has been pressed."""


def _written(
    folder: Path, steps: list[Step], summaries: Sequence[tuple[str, Summary]], *, quiet: bool
) -> Summary:
    found = knee(steps)
    with (folder / "sweep.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("step", "offered_rate", "rate", "tokens_per_s", "e2e_p50_ms", "e2e_p95_ms"))
        for name, summary in summaries:
            e2e = summary.metrics.get("e2e_intended")
            latency = (e2e.p50, e2e.p95) if e2e is not None else ("", "")
            rows.writerow((name, summary.offered_rate, summary.rate, summary.tokens_per_s, *latency))
    document = {
        "knee": found.name if found else None,
        "steps": [{"name": name, **summary.model_dump()} for name, summary in summaries],
    }
    (folder / SUMMARY).write_text(json.dumps(document, indent=2) + "\n")
    say("drawing the chart ...", quiet=quiet)
    chart = of_sweep(steps, found)
    write_page(folder, "Saturation sweep", summaries, {"saturation": chart} if chart is not None else {})
    if not quiet:
        Console(highlight=False, width=120).print(tables.of_sweep(steps, found))
    return (found.summary if found else None) or summaries[-1][1]
