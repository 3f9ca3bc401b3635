"""One run from beginning to end: mesh, generators, faults, figures, files."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loadtest.chaos import Chaos, Fault, Mark, Verb
from loadtest.faults import NoMesh
from loadtest.generate.generator_pool import GeneratorPool
from loadtest.generate.plan import LoadPlan
from loadtest.generate.progress import Snapshot
from loadtest.outcome.live import LiveView, say, shown
from loadtest.outcome.measurements import Column, Measurements
from loadtest.outcome.objectives import Objective, meets
from loadtest.outcome.outputs import write_config, write_results
from loadtest.outcome.page import run_charts, write_page
from loadtest.outcome.summary import Summary, summarise
from schemas.errors import ChoirError
from services.chassis.process.cancelling import ended
from services.client.client import Choir


@asynccontextmanager
async def mesh_under_load(url: str | None, config: Path | None, *, quiet: bool = False) -> AsyncIterator[str]:
    """The mesh at `url`, or one of the demo models that is started for the test and stopped after it."""
    if url is not None:
        yield url
        return
    from infra.host.demo_mesh import demo_mesh

    say("starting a mesh of the demo models for this test ...", quiet=quiet)
    began_s = time.monotonic()
    async with demo_mesh(config) as supervisor:
        say(f"the mesh is ready after {time.monotonic() - began_s:.0f} s: {supervisor.url}", quiet=quiet)
        yield supervisor.url
        say("stopping the mesh ...", quiet=quiet)


async def models_at(url: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The models to ask: those that are wanted, or all; NoMesh if one of them is not there."""
    try:
        async with Choir(url) as mesh:
            live = [model.name for model in await mesh.models() if model.slots]
    except ChoirError as error:
        raise NoMesh(error.message) from error
    missing = [name for name in wanted if name not in live]
    if missing or not live:
        there = f"there are: {', '.join(live) or 'none'}"
        raise NoMesh(f"no live agent serves {missing[0] if missing else 'any model'}; {there}")
    return tuple(wanted) or tuple(sorted(live))


async def slots_at(url: str, models: Sequence[str]) -> int:
    """How many requests these models work on at once."""
    async with Choir(url) as mesh:
        return sum(model.slots for model in await mesh.models() if model.name in models)


@dataclass
class Outcome:
    """What came of a run. `met` says of each request whether it met the objectives, None if there were none;
    `interrupted` that the run ended early."""

    measured: Measurements
    met: Column | None
    summary: Summary
    marks: list[Mark] = field(default_factory=list)
    interrupted: bool = False


class Session:
    """Runs plans against one mesh. Ctrl-C ends the run under way and keeps what it has measured.

    `on_progress` is told now and then how far the generators are.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        objectives: Sequence[Objective],
        *,
        quiet: bool,
        verbs: Mapping[str, Verb] | None = None,
        on_progress: Callable[[Sequence[Snapshot]], None] = lambda _snapshots: None,
    ) -> None:
        self._on_progress = on_progress
        self._verbs = verbs
        self._url = url
        self._folder = folder
        self._objectives = objectives
        self._quiet = quiet
        self.interrupted = False

    async def run(self, plan: LoadPlan, faults: Sequence[Fault] = (), folder: Path | None = None) -> Outcome:
        """Measures a plan, while these faults happen to the mesh."""
        folder = folder or self._folder
        pool = GeneratorPool(plan, self._url, folder)
        total_s = plan.duration_s if plan.requests is None else None
        with self._interruptible(pool), shown(LiveView(total_s), quiet=self._quiet) as view:
            chaos = Chaos(self._url, faults, plan.seed, lambda mark: view.mark(mark.text), self._verbs)
            striking: list[asyncio.Task[None]] = []
            try:

                def take(snapshots: Sequence[Snapshot]) -> None:
                    view.take(snapshots)
                    self._on_progress(snapshots)

                measured = await pool.run(
                    take, lambda: striking.append(asyncio.create_task(chaos.run(pool.clock)))
                )
            finally:
                await ended(striking)
        met = meets(measured, self._objectives)
        summary = summarise(measured, met, plan.warm_up_s)
        return Outcome(measured, met if self._objectives else None, summary, chaos.marks, self.interrupted)

    def say(self, text: str) -> None:
        """Tells whoever waits what is going on."""
        say(text, quiet=self._quiet)

    @contextmanager
    def _interruptible(self, pool: GeneratorPool) -> Iterator[None]:
        def interrupt() -> None:
            self.interrupted = True
            sys.stderr.write("stopping; what was measured is kept\n")
            pool.stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


async def run_and_write(
    session: Session, plan: LoadPlan, faults: Sequence[Fault], folder: Path, options: dict[str, Any]
) -> Outcome:
    """One run, with all its files in `folder`."""
    write_config(folder, plan, options)
    models = ", ".join(plan.ask.models)
    session.say(f"loading {models}")
    outcome = await session.run(plan, faults)
    session.say(f"{len(outcome.measured):,} requests measured; writing them down ...")
    write_results(folder, outcome.summary, outcome.marks)
    charts = run_charts(outcome.measured, outcome.met, outcome.marks, plan.warm_up_s)
    session.say(f"drawing {len(charts)} charts ...")
    write_page(folder, f"Load test {plan.run}", [("Figures", outcome.summary)], charts, outcome.marks)
    return outcome


def step_plan(plan: LoadPlan, number: int) -> LoadPlan:
    """A plan whose requests are not those of another step."""
    return replace(plan, run=f"{plan.run}-{number}", seed=plan.seed + number)
