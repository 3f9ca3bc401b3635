"""A batch as `choir batch` shows it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sized

import typer

from services.cli.batch.journal import BatchJournal
from services.cli.batch.outputs import Totals
from services.cli.batch.plan import Plan
from services.cli.batch.progress import failure_line, progress
from services.cli.batch.run import BatchRun, new_head
from services.cli.views.terminal import print_json
from services.client.bulk.progress import duration
from services.client.client import Choir

LISTED_FAILURES = 20


class BatchSession:
    """One run of a batch on the command line. Its results are written however it ends."""

    def __init__(self, plan: Plan, *, restart: bool, as_json: bool) -> None:
        self._plan = plan
        self._restart = restart
        self._as_json = as_json

    async def run(self) -> bool:
        """Whether every task has been answered."""
        async with Choir() as mesh:
            with BatchJournal(self._plan.journal, new_head(self._plan), restart=self._restart) as journal:
                return await self._run(BatchRun(self._plan, mesh, journal))

    async def _run(self, batch: BatchRun) -> bool:
        await batch.check()
        total = len(self._plan)
        documents, prompts = count(self._plan.documents, "document"), count(self._plan.prompts, "prompt")
        self._say(
            f"{documents}, {prompts}: {total} tasks"
            + (f", {total - batch.left} of them done before" if batch.left < total else "")
        )
        try:
            with progress(total, total - batch.left) as note:
                await batch.work(note)
        finally:
            before_s = batch.seconds_before
            totals = batch.write_results()
            self._conclude(batch, totals, before_s)
        return totals.successful == totals.total_tasks

    def _conclude(self, batch: BatchRun, totals: Totals, before_s: float) -> None:
        """The summary, which files failed and why, and how to go on."""
        if self._as_json:
            print_json(totals)
        took = duration(totals.total_time_seconds - before_s)
        if before_s:
            took += f" ({duration(totals.total_time_seconds)} with the runs before)"
        self._say(
            f"{totals.successful} answered, {totals.failed} failed, {totals.unfinished} not done, in "
            f"{took}: {', '.join(map(str, self._plan.outputs))}"
        )
        failures = Counter(
            failure_line(record.file, record.error) for record in batch.failures() if record.error
        )
        for line, prompts in list(failures.items())[:LISTED_FAILURES]:
            self._say(f"  {line}" + (f" (for {prompts} prompts)" if prompts > 1 else ""))
        if len(failures) > LISTED_FAILURES:
            self._say(f"  and {len(failures) - LISTED_FAILURES} more, all of them in the results")
        if totals.failed or totals.unfinished:
            self._say(f"to go on: {shlex.join(['choir', *sys.argv[1:]])}")

    def _say(self, line: str) -> None:
        typer.echo(line, err=True)


def count(things: Sized, name: str) -> str:
    """`1 document`, `2 documents`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
