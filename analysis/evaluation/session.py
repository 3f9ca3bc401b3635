"""An evaluation from its options to a folder full of answers: open, ask, keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

from analysis.evaluation import plan
from analysis.evaluation.crossfit import best_agents
from analysis.evaluation.journal import EvalJournal
from analysis.evaluation.machine import machine, versions
from analysis.evaluation.matched import samples_wanted
from analysis.evaluation.mesh import members, open_mesh
from analysis.evaluation.options import EvalOptions
from analysis.evaluation.progress import Reporter
from analysis.evaluation.protocol import Protocol, open_protocol
from analysis.evaluation.reading import read_run
from analysis.evaluation.run_folder import RunConfig, RunFolder, run_id
from analysis.evaluation.runner import Runner
from analysis.evaluation.usage import watched
from schemas.errors import InvalidRequest
from services.client.client import Choir

QUEUED_PER_SLOT = 4
"""How many questions are under way for each slot: one is in it, the others on their way to it and from it."""


OpenFolder = Callable[[Mapping[str, Protocol], Mapping[str, int]], RunFolder]
"""Gives a run's folder once it is known what is asked of whom: the models, each with its slots."""


async def ask_all(
    open_folder: OpenFolder,
    options: EvalOptions,
    out: Reporter,
    *,
    agents: Sequence[str] = (),
    url: str | None = None,
    concurrency: int | None = None,
) -> RunFolder:
    """Asks what a run has not asked yet, and returns its folder.

    `agents` are those of an earlier attempt: the same ones, or none, go on with it.
    """
    protocols = {name: open_protocol(name, options) for name in options.benchmarks}
    async with open_mesh(url, out.say) as mesh:
        asked = members(await mesh.models(), agents or options.models, options.max_agents)
        folder = open_folder(protocols, {model.name: model.slots for model in asked})
        out.say(f"{folder.path}: {', '.join(protocols)}; asking {', '.join(folder.config.agents)}")
        slots = max(model.slots for model in asked)
        with EvalJournal(folder.journal) as journal, _resumable(folder, out):
            async with watched(mesh, folder.config.agents, folder.usage):
                work = _Work(mesh, journal, folder, protocols, concurrency or QUEUED_PER_SLOT * slots, out)
                await work.run()
    return folder


@contextmanager
def _resumable(folder: RunFolder, out: Reporter) -> Iterator[None]:
    """Whatever ends the asking before its end: it is said how it goes on."""
    try:
        yield
    except BaseException:
        out.say(f"what came back is kept; go on with: choir eval --resume {folder.path}")
        raise


def new_folder(results: Path, options: EvalOptions) -> OpenFolder:
    """Makes the folder of a new run."""

    def make(protocols: Mapping[str, Protocol], slots: Mapping[str, int]) -> RunFolder:
        identity, created_at = run_id(options.name)
        config = RunConfig(
            run_id=identity,
            created_at=created_at,
            options=options,
            agents=tuple(slots),
            slots=dict(slots),
            benchmarks={name: protocol.described() for name, protocol in protocols.items()},
            versions=versions(),
            machine=machine(),
        )
        return RunFolder.create(results, config)

    return make


def resumed(folder: RunFolder) -> OpenFolder:
    """Goes on with a folder, if the benchmarks' files are those that it was started with."""

    def check(protocols: Mapping[str, Protocol], _slots: Mapping[str, int]) -> RunFolder:
        folder.check_files({name: protocol.described() for name, protocol in protocols.items()})
        return folder

    return check


class _Work:
    """The two phases of a run: all agents on every question, then samples of the best."""

    def __init__(
        self,
        mesh: Choir,
        journal: EvalJournal,
        folder: RunFolder,
        protocols: Mapping[str, Protocol],
        concurrency: int,
        out: Reporter,
    ) -> None:
        self._mesh = mesh
        self._journal = journal
        self._config = folder.config
        self._options = folder.config.options
        self._items = plan.items(self._options, protocols)
        self._ways = {name: protocol.extraction for name, protocol in protocols.items()}
        self._concurrency = concurrency
        self._out = out

    async def run(self) -> None:
        """Asks everything that is still to be asked."""
        questions = [
            plan.fan_out(self._config.run_id, item, self._config.agents, self._options)
            for item in self._items
        ]
        self._check_journal(questions)
        await self._ask("questions", questions)
        await self._ask("samples of the best agent", self._samples())

    def _check_journal(self, questions: Sequence[plan.Call]) -> None:
        """InvalidRequest if the journal has questions that this plan would not ask, or not so."""
        planned = {call.request_id for call in questions}
        for kept in self._journal.records.values():
            if kept.phase == "fan_out" and kept.request_id not in planned:
                raise InvalidRequest(
                    f"resume: question {kept.question_id} of {kept.benchmark} was asked differently from "
                    "how it would be asked now, by another version; --replay decides what was kept",
                    field="resume",
                )

    def _samples(self) -> list[plan.Call]:
        """Self-consistency: for each question the agent that is best on the others, sampled."""
        asked = read_run(self._journal.records.values(), self._ways)
        best = best_agents(asked, self._options.seed)
        wanted = samples_wanted(asked, best, self._options)
        return [
            plan.sample(
                self._config.run_id, item, best[item.benchmark, item.question.id], number, self._options
            )
            for item in self._items
            for number in range(1, wanted[item.benchmark] + 1)
        ]

    async def _ask(self, name: str, calls: Sequence[plan.Call]) -> None:
        if not calls:
            return
        done = sum(self._journal.is_done(call.request_id) for call in calls)
        answers = Runner(self._mesh, self._journal, self._concurrency, teach=self._options.teach).run(calls)
        with self._out.phase(name, len(calls), done) as advance:
            async with aclosing(answers):
                async for kept in answers:
                    advance(kept.error is not None)
