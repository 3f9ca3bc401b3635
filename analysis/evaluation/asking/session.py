"""An evaluation from its options to a folder full of answers: open, ask, keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import NamedTuple

from analysis.evaluation.asking import plan
from analysis.evaluation.asking.journal import EvalJournal
from analysis.evaluation.asking.machine import machine, versions
from analysis.evaluation.asking.mesh import members, open_mesh
from analysis.evaluation.asking.protocol import Protocol, open_protocol
from analysis.evaluation.asking.run_folder import RunConfig, RunFolder, run_id
from analysis.evaluation.asking.runner import Runner
from analysis.evaluation.asking.usage import watched
from analysis.evaluation.contestants.crossfit import best_agents
from analysis.evaluation.contestants.matched import samples_wanted
from analysis.evaluation.likelihood.votes import one_for_each_question
from analysis.evaluation.options import EvalOptions
from analysis.evaluation.provenance.asking import CachedAsking
from analysis.evaluation.provenance.cache import AnswerCache
from analysis.evaluation.provenance.commit import commit
from analysis.evaluation.provenance.models import ModelFile, identified
from analysis.evaluation.scoring.reading import read_run
from schemas.errors import InvalidRequest
from schemas.replies import ModelSummary
from services.chassis.identity import new_id
from services.client.bulk.progress import Reporter
from services.client.client import Choir

QUEUED_PER_SLOT = 4
"""How many questions are under way for each slot: one is in it, the others on their way to it and from it."""


class Members(NamedTuple):
    """Whom a run asks: the slots of each model, and its file."""

    slots: dict[str, int]
    files: dict[str, ModelFile]


OpenFolder = Callable[[Mapping[str, Protocol], Members], RunFolder]
"""Gives a run's folder once it is known what is asked of whom."""


async def ask_all(
    open_folder: OpenFolder,
    options: EvalOptions,
    out: Reporter,
    *,
    agents: Sequence[str] = (),
    url: str | None = None,
    concurrency: int | None = None,
    cache: AnswerCache | None = None,
) -> RunFolder:
    """Asks what a run has not asked yet, and returns its folder.

    `agents` are those of an earlier attempt: the same ones, or none, go on with it. What `cache` has of
    earlier runs is not asked.
    """
    protocols = {name: open_protocol(name, options) for name in options.benchmarks}
    async with open_mesh(url, out.say) as mesh:
        asked = members(await mesh.models(), agents or options.models, options.max_agents)
        check_able(asked, protocols)
        files = await identified(mesh, asked)
        folder = open_folder(protocols, Members({model.name: model.slots for model in asked}, files))
        out.say(f"{folder.path}: {', '.join(protocols)}; asking {', '.join(folder.config.agents)}")
        slots = max(model.slots for model in asked)
        with EvalJournal(folder.journal) as journal, _resumable(folder, out):
            async with watched(mesh, folder.config.agents, folder.usage):
                work = _Work(
                    mesh,
                    journal,
                    folder,
                    protocols,
                    concurrency or QUEUED_PER_SLOT * slots,
                    out,
                    CachedAsking(cache, {name: file.sha256_of_samples for name, file in files.items()}),
                )
                await work.run()
    return folder


def check_able(asked: Sequence[ModelSummary], protocols: Mapping[str, Protocol]) -> None:
    """InvalidRequest, naming the model, if one cannot do what a benchmark needs."""
    needs = {
        "scoring": "score a given text",
        "tokenizing": "tell its tokens",
        "raw": "go on with a raw prompt",
    }
    for name, protocol in protocols.items():
        wanted = (
            ("scoring", "tokenizing") if protocol.is_scored else () if protocol.chat_template else ("raw",)
        )
        for model in asked:
            if lacking := [need for need in wanted if need not in model.capabilities]:
                raise InvalidRequest(
                    f"models: {model.name} cannot {needs[lacking[0]]}, as {name} needs it; leave the model "
                    "out, or ask models that agents run by themselves",
                    field="models",
                )


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

    def make(protocols: Mapping[str, Protocol], asked: Members) -> RunFolder:
        identity, created_at = run_id(options.name)
        config = RunConfig(
            run_id=identity,
            created_at=created_at,
            options=options,
            agents=tuple(asked.slots),
            slots=asked.slots,
            benchmarks={name: protocol.described() for name, protocol in protocols.items()},
            versions=versions(),
            machine=machine(),
            models=asked.files,
            commit=commit(),
            asked_as=new_id(),
        )
        return RunFolder.create(results, config)

    return make


def resumed(folder: RunFolder) -> OpenFolder:
    """Goes on with a folder, if the files of benchmarks and models are those that it was started with."""

    def check(protocols: Mapping[str, Protocol], asked: Members) -> RunFolder:
        folder.check_files({name: protocol.described() for name, protocol in protocols.items()})
        folder.check_models(asked.files)
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
        asking: CachedAsking,
    ) -> None:
        self._mesh = mesh
        self._asking = asking
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
            call
            for item in self._items
            for call in plan.questions(self._config.ids_of, item, self._config.agents, self._options)
        ]
        self._check_journal(questions)
        await self._ask("questions", questions)
        await self._ask("samples of the best agent", self._samples())

    def _check_journal(self, questions: Sequence[plan.Call]) -> None:
        """InvalidRequest if the journal has questions that this plan would not ask, or not so."""
        planned = {call.request_id for call in questions}
        for kept in self._journal.records.values():
            if kept.phase != "sample" and kept.request_id not in planned:
                raise InvalidRequest(
                    f"resume: question {kept.question_id} of {kept.benchmark} was asked differently from "
                    "how it would be asked now, by another version; --replay decides what was kept",
                    field="resume",
                )

    def _samples(self) -> list[plan.Call]:
        """Self-consistency: for each question the agent that is best on the others, sampled. Where options
        are scored, or a text is checked as a whole, nothing is sampled."""
        records = self._journal.records.values()
        written = [kept for kept in records if kept.phase != "score" and kept.kind != "text"]
        asked = read_run(one_for_each_question(written, self._ways), self._ways)
        best = best_agents(asked, self._options.seed)
        wanted = samples_wanted(asked, best, self._options)
        return [
            plan.sample(
                self._config.ids_of, item, best[item.benchmark, item.question.id], number, self._options
            )
            for item in self._items
            for number in range(1, wanted.get(item.benchmark, 0) + 1)
        ]

    async def _ask(self, name: str, calls: Sequence[plan.Call]) -> None:
        if not calls:
            return
        done = sum(self._journal.is_done(call.request_id) for call in calls)
        runner = Runner(
            self._mesh,
            self._journal,
            self._concurrency,
            asking=self._asking,
            teach=self._options.teach,
        )
        answers = runner.run(calls)
        with self._out.phase(name, len(calls), done) as advance:
            async with aclosing(answers):
                async for kept in answers:
                    advance(kept.error is not None)
