"""`python -m loadtest`: load a mesh and measure it; `python -m loadtest compare A B`: two runs compared."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtest.chaos import Fault
from loadtest.faults import FAILED, LoadtestError, complain
from loadtest.options import checked, listed, parser, plan_of
from loadtest.outcome import tables
from loadtest.outcome.compare import compare, read_run
from loadtest.outcome.objectives import Condition, Objective
from loadtest.outcome.outputs import new_folder
from loadtest.outcome.summary import Summary
from loadtest.session import Session, mesh_under_load, models_at, run_and_write
from loadtest.sweep.session import run_sweep
from schemas.errors import ChoirError

DONE, INTERRUPTED = 0, 130
COMPARE = "compare"


async def load(options: argparse.Namespace) -> int:
    """What the options ask for; the exit code."""
    objectives, conditions, faults = checked(options)
    async with mesh_under_load(options.url, options.config, quiet=options.json) as url:
        models = await models_at(url, listed(options.models))
        folder = new_folder(options.name, options.out)
        session = Session(url, folder, objectives, quiet=options.json)
        if options.sweep:
            summary = await run_sweep(session, plan_of(options, models), url, folder, vars(options))
        else:
            summary = await _one_run(options, session, models, folder, faults)
    return _concluded(options, session, summary, folder, objectives, conditions)


async def _one_run(
    options: argparse.Namespace,
    session: Session,
    models: tuple[str, ...],
    folder: Path,
    faults: Sequence[Fault],
) -> Summary:
    outcome = await run_and_write(session, plan_of(options, models), faults, folder, vars(options))
    if not options.json:
        console().print(tables.of_run(outcome))
    return outcome.summary


def _concluded(
    options: argparse.Namespace,
    session: Session,
    summary: Summary,
    folder: Path,
    objectives: Sequence[Objective],
    conditions: Sequence[Condition],
) -> int:
    """Says where the results are and what came of the conditions; the exit code."""
    came_true = [str(condition) for condition in conditions if condition.holds(summary)]
    if options.json:
        document = {**summary.model_dump(), "folder": str(folder), "failed_if": came_true}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        console().print(tables.conclusion(summary, folder, objectives, came_true), highlight=False)
    if session.interrupted:
        return INTERRUPTED
    gone = not summary.answered or summary.silent_after_s is not None
    return FAILED if came_true or gone else DONE


def compare_runs(arguments: Sequence[str]) -> int:
    """`compare A B [--json]`."""
    options = argparse.ArgumentParser(prog="loadtest compare", description="Two runs, with intervals.")
    options.add_argument("a", type=Path)
    options.add_argument("b", type=Path)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args(arguments)
    found = compare(read_run(chosen.a), read_run(chosen.b))
    if chosen.json:
        sys.stdout.write(json.dumps([dataclasses.asdict(one) for one in found], indent=2) + "\n")
    else:
        console().print(tables.of_comparison(chosen.a.name, chosen.b.name, found))
    return DONE


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; every error is one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == [COMPARE]:
            return compare_runs(given[1:])
        return asyncio.run(load(parser().parse_args(given)))
    except (LoadtestError, ChoirError) as error:
        return complain("loadtest", error)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
