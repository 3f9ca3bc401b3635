"""`python -m loadtest.trial.soak`: holds 70 % of what a mesh can do, for an hour, and looks at every
process's memory.

It measures what the mesh can do first, with as many users as there are slots. While it holds the load a line
on standard error says now and then what was answered, what failed, and how large each process is: so a run
that is cut off has told what it saw. Ctrl-C ends it early, and it reports. Exit codes: 0 nothing failed, no
process ended and all memory is flat, 1 something was not, 2 wrong usage, 3 no mesh.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from infra.host.demo_mesh import demo_mesh
from loadtest.faults import LoadtestError, WrongOption, complain
from loadtest.generate.arrivals import Rate
from loadtest.generate.plan import LoadPlan
from loadtest.generate.progress import Snapshot
from loadtest.generate.workloads import AskOptions
from loadtest.session import Session, slots_at
from loadtest.trial.memory import LEAST_GROWTH_BYTES, MIB, Growth, MemoryWatch, growth
from schemas.errors import ChoirError
from services.chassis.process.cancelling import ended

FLAT, GROWING = 0, 1
MODELS = ("alpha", "beta")
CONFIG = """
[summarizer]
replicas = 0
[[agents]]
name = "alpha"
backend = "instant"
models = [{ name = "alpha", reply = "one two three four", slots = 16 }]
[[agents]]
name = "beta"
backend = "instant"
models = [{ name = "beta", reply = "one two three", slots = 16 }]
"""
BROKER = "nats-server"
BROKER_KEEPS_BYTES = 4_096
"""What a request leaves in the broker's memory: about 1.5 kB for the text that is generated (TOKENS, ten
minutes), 0.4 kB for the ids of its messages (up to 61 minutes), and a little for subjects; twice of that, for
the heap of a program in Go grows to twice of what is alive in it."""
BROKER_SETTLES_BYTES = 48 * MIB
"""What it takes once, whatever is asked. Seen with nats-server 2.15.1 after forced collections: 4 MiB alive
before the first request, 21, 23 and 21 after 1,400, 2,100 and 2,800; 10 of them are the buffers through which
its files are written. Meanwhile the process grew from 23 to 47, 61 and 65 MiB, and beside other programs from
26 to 55 after 1,800, and from 62 to 98 after 4,400: Go had 28 of them in hand, and gives back slowly."""
METRICS_SETTLES_BYTES = 32 * MIB
"""DuckDB takes memory while it gathers rows and gives it back at a checkpoint: seen to go up and down between
134 and 208 MiB in four minutes of 90 requests a second, which one minute shows a piece of."""
ROUTER = "services.router"
ROUTER_PENDING_BYTES = 14 * 1024
"""What a router takes once for each request that waits at the same time as others: Python keeps the room for
the next ones. Seen with 1,200 at once three times: 22.5 MiB before, 37.1, 37.1 and 37.2 after. A machine that
stands still for two seconds at 340 requests a second makes 700 wait."""
SAMPLES = 200
LINES, LEAST_LINE_S = 60, 10.0


def own_limits(most_in_flight: int) -> dict[str, tuple[float, float]]:
    """What the processes of a name may keep of each request, and what they may take once, in bytes."""
    router = LEAST_GROWTH_BYTES + ROUTER_PENDING_BYTES * most_in_flight
    return {
        BROKER: (BROKER_KEEPS_BYTES, BROKER_SETTLES_BYTES),
        "services.metrics": (0, METRICS_SETTLES_BYTES),
        ROUTER: (0, router),
    }


class ProgressLines:
    """A line now and then, of a run of `total_s` seconds: what the generators say, and the memory of all.

    `most_in_flight` is how many requests were open at once so far, `longest_ms` what the slowest one took
    since the last line.
    """

    def __init__(self, watch: MemoryWatch, total_s: float, write: Callable[[str], object]) -> None:
        self._watch = watch
        self._total_s = total_s
        self._every_s = max(LEAST_LINE_S, total_s / LINES)
        self._next_s = self._every_s
        self._write = write
        self.most_in_flight = 0
        self.longest_ms = 0.0

    def take(self, snapshots: Sequence[Snapshot]) -> None:
        """The latest of every generator."""
        self.most_in_flight = max(self.most_in_flight, sum(shot["in_flight"] for shot in snapshots))
        self.longest_ms = max((self.longest_ms, *(ms for shot in snapshots for ms in shot["e2e_ms"])))
        at_s = max((shot["at_s"] for shot in snapshots), default=0.0)
        if at_s < self._next_s:
            return
        self._next_s = at_s + self._every_s
        errors: Counter[str] = Counter()
        for shot in snapshots:
            errors.update(shot["errors"])
        answered = sum(shot["ended"] for shot in snapshots) - errors.total()
        failed = ", ".join(f"{count:,} {code}" for code, count in sorted(errors.items())) or "none"
        sizes = ", ".join(f"{name} {mib:.1f} ({more:+.1f})" for name, mib, more in self._watch.now())
        ended = "; ended: " + ", ".join(self._watch.ended) if self._watch.ended else ""
        self._write(
            f"{at_s:,.0f} of {self._total_s:,.0f} s: {answered:,} answered, errors: {failed}; at most "
            f"{self.most_in_flight:,} at once so far, {self.longest_ms:,.0f} ms since the last line; MiB "
            f"(and how many more than when settled): {sizes}{ended}\n"
        )
        self.longest_ms = 0.0


def mesh_processes() -> dict[int, str]:
    """The processes of the mesh: this one's children, but those that generate load."""
    found: dict[int, str] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            words = " ".join(child.cmdline()).split()  # who is forked has a name of one piece
        except psutil.Error:
            continue
        if any(BROKER in word for word in words[:1]):
            found[child.pid] = BROKER
        else:
            services = [word for word in words if word.startswith("services.")]
            found |= {child.pid: services[0]} if services else {}
    return found


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run from beginning to end: its figures."""
    config = folder / "choir.toml"
    config.write_text(CONFIG)
    console = Console(stderr=True)
    async with demo_mesh(options.config or config) as supervisor:
        models = MODELS if options.config is None else supervisor.settings.models
        watch = MemoryWatch(mesh_processes, max(0.5, options.duration / SAMPLES))
        lines = ProgressLines(watch, options.duration, sys.stderr.write)
        session = Session(supervisor.url, folder, (), quiet=True)
        plan = LoadPlan(
            run=f"soak-{int(time.time())}",
            ask=AskOptions(models=tuple(models)),
            mix={"single": 0.8, "ensemble": 0.2},
            concurrency=await slots_at(supervisor.url, models),
            duration_s=options.measure,
        )
        most = (await session.run(plan)).summary.rate
        rate = most * options.share
        console.print(
            f"{most:,.0f} requests/s at most; {rate:,.0f} for {options.duration:,.0f} s", highlight=False
        )
        watching = asyncio.create_task(watch.keep())
        try:
            held = replace(
                plan, run=f"{plan.run}-held", concurrency=None, rate=Rate(rate), duration_s=options.duration
            )
            held_session = Session(supervisor.url, folder, (), quiet=True, on_progress=lines.take)
            outcome = await held_session.run(held)
        finally:
            await ended([watching])
    summary = outcome.summary
    limits = own_limits(lines.most_in_flight)
    found = [
        growth(name, pid, watch.samples[pid], summary.rate, *limits.get(name, ()))
        for pid, name in watch.names.items()
    ]
    processes = [one for one in found if one is not None]
    return {
        "capacity_per_s": round(most, 1),
        "offered_per_s": round(rate, 1),
        "answered_per_s": round(summary.rate, 1),
        "seconds": round(summary.seconds, 1),
        "requests": summary.requests,
        "answered": summary.answered,
        "errors": summary.errors,
        "lost": summary.lost,
        "doubled": summary.doubled,
        "most_in_flight": lines.most_in_flight,
        "latency_ms": {name: distribution.model_dump() for name, distribution in summary.metrics.items()},
        "processes": [asdict(one) for one in processes],
        "ended": watch.ended,
        "interrupted": outcome.interrupted,
        "load_1m": round(psutil.getloadavg()[0], 2),
        "flat": all(one.flat for one in processes) and not watch.ended,
        "whole": summary.answered == summary.requests,
    }


def table(processes: Sequence[Growth]) -> Table:
    """What became of each process."""
    shown = Table(
        "process", "MiB first", "last", "highest", "bytes/s", "bytes/request", "MiB grown", "may grow", "flat"
    )
    for one in processes:
        sizes = (one.first_mib, one.last_mib, one.highest_mib)
        figures = (*sizes, one.bytes_per_s, one.bytes_per_request, one.grown_mib, one.limit_mib)
        shown.add_row(
            one.name, *(f"{figure:,.1f}" for figure in figures), "yes" if one.flat else "[red]no[/]"
        )
    return shown


def parser() -> argparse.ArgumentParser:
    """All options."""
    options = argparse.ArgumentParser(prog="python -m loadtest.trial.soak", description=__doc__)
    options.add_argument("--duration", type=float, default=3_600.0, metavar="S", help="seconds (3600)")
    options.add_argument("--share", type=float, default=0.7, help="of what the mesh can do (0.7)")
    options.add_argument(
        "--measure", type=float, default=15.0, metavar="S", help="seconds to find that out (15)"
    )
    options.add_argument("--config", type=Path, help="another choir.toml than that of two instant models")
    options.add_argument("--json", action="store_true", help="print one JSON document")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    options = parser().parse_args(arguments)
    try:
        if not (0 < options.share <= 1 and options.duration > 0):
            raise WrongOption("--share is above 0 and at most 1, --duration above 0")
        with tempfile.TemporaryDirectory() as folder:
            figures = asyncio.run(soak(options, Path(folder)))
    except (LoadtestError, ChoirError) as error:
        return complain("soak", error)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(table([Growth(**one) for one in figures["processes"]]))
        console.print(
            f"{figures['requests']:,} requests in {figures['seconds']:,.0f} s, {figures['answered']:,} "
            f"answered, "
            f"{figures['lost']} lost, {figures['doubled']} doubled, errors: {figures['errors'] or 'none'}"
        )
    return FLAT if figures["flat"] and figures["whole"] else GROWING


if __name__ == "__main__":
    sys.exit(main())
