"""Evaluations of a real mesh: one fan-out, slots kept busy, nothing asked twice, nothing measured lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.run_folder import RunFolder
from analysis.evaluation.asking.session import ask_all, new_folder, resumed
from analysis.evaluation.command import evaluate
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.options import build_options
from analysis.evaluation.reporting.raw_records import raw_records
from infra.host.demo_mesh import demo_mesh
from infra.testing.plugin import REPOSITORY, ServiceProcess, SpawnService
from schemas import subjects
from schemas.errors import InvalidRequest, MeshUnreachable, UnknownModel, UnknownStrategy
from services.client.bulk.progress import PlainReporter
from services.client.client import Choir

pytestmark = pytest.mark.long

MODELS = ("alpha", "beta", "gamma", "delta")
SLOTS = 4
DIRECT = ("majority", "weighted", "isp", "topic", "ow_l", "ow_i", "dawid_skene")
WAYS = {"choir-mmlu": "flexible"}
DEADLINE_S = 180.0
OUT = PlainReporter(sys.stderr)


def start(spawn: SpawnService, delay_ms: float, *groups: tuple[str, ...]) -> list[ServiceProcess]:
    """A router, an aggregator, and an agent for each group of models: all say the same after a while."""
    agents = [
        {
            "name": f"agent-{models[0]}",
            "backend": "instant",
            "models": [
                {"name": name, "slots": SLOTS, "reply": f"It is {name}: A", "delay_ms": delay_ms}
                for name in models
            ],
        }
        for models in groups or (MODELS,)
    ]
    return [
        spawn("router"),
        spawn("aggregator"),
        *(spawn("agent", str(agent["name"]), agent=agent) for agent in agents),
    ]


async def ready(services: list[ServiceProcess], connection: Client) -> None:
    """Returns when every service says that it is ready."""
    for service in services:
        await service.wait_ready(connection)


async def stored_answers(connection: Client) -> int:
    """How many answers of ensembles the mesh has ever stored."""
    return (await connection.jetstream().stream_info(subjects.ANSWERS_STREAM)).state.last_seq


def options(**said: Any) -> dict[str, Any]:
    """A small evaluation without samples of the best agent."""
    return {
        "benchmarks": ("choir-mmlu",),
        "strategies": DIRECT,
        "samples": 24,
        "self_consistency": 0,
        "deterministic": True,
    } | said


@pytest.mark.soak
async def test_all_direct_strategies_cost_one_fan_out_that_keeps_the_slots_busy(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    await ready(start(spawn_service, 200), connection)
    asked = build_options(options(samples=40))
    folder = await ask_all(new_folder(tmp_path, asked), asked, OUT, url=mesh_url)

    assert await stored_answers(connection) == 40 * len(MODELS)
    kept = read_journal(folder.journal)
    middle_s = sorted(each.asked_at_s for each in kept)[len(kept) // 2]
    assert sum(each.asked_at_s <= middle_s <= each.asked_at_s + each.wall_s for each in kept) >= SLOTS

    strangers = build_options(options(models=("alpha", "omega")))
    with pytest.raises(UnknownModel, match="nobody serves omega; there are alpha, beta, delta, gamma"):
        await ask_all(new_folder(tmp_path / "none", strangers), strangers, OUT, url=mesh_url)
    assert not (tmp_path / "none").exists()
    again = await ask_all(resumed(folder), asked, OUT, agents=folder.config.agents, url=mesh_url)
    assert read_journal(again.journal) == kept
    assert await stored_answers(connection) == 40 * len(MODELS)
    await asyncio.to_thread(offline_checks, folder, tmp_path)


def offline_checks(folder: RunFolder, results: Path) -> None:
    """What can be done with a run without a mesh: decide it again, or say why it cannot go on."""
    replayed = evaluate(
        {"strategies": ("majority", "debate", "isp_elicited")},
        results=results,
        out=OUT,
        replay=folder.config.run_id,
    )
    assert replayed.config.replay_of == folder.config.run_id
    decided = json.loads((replayed.path / "decisions.json").read_text())
    assert {row["contestant"] for row in decided} >= {"majority", "debate", "oracle", *MODELS}
    assert sum(row["contestant"] == "debate" for row in decided) == 40
    with pytest.raises(InvalidRequest, match="best_single is made from samples"):
        evaluate({"strategies": ("best_single",)}, results=results, out=OUT, replay=folder.config.run_id)
    before = folder.journal.read_bytes()
    with pytest.raises(InvalidRequest, match="was started with seed 42, not 43") as caught:
        evaluate({"seed": 43}, results=results, out=OUT, resume=folder.config.run_id)
    assert caught.value.field == "seed"
    with pytest.raises(InvalidRequest, match="samples cannot be changed: the answers are there already"):
        evaluate({"samples": 3}, results=results, out=OUT, replay=folder.config.run_id)
    with pytest.raises(InvalidRequest, match="is no run"):
        evaluate({}, results=results, out=OUT, resume="run_of_nobody")
    assert folder.journal.read_bytes() == before


class Evaluation:
    """`choir eval` in a process of its own."""

    def __init__(self, results: Path, url: str, *arguments: str) -> None:
        self._results = results
        self._command = [sys.executable, "-m", "services.cli", "eval", "--output", str(results), "--url", url]
        self._arguments = arguments

    async def until(self, lines: int, how: signal.Signals) -> tuple[int, str]:
        """Runs until so many requests are kept, and ends it; its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *self._arguments,
            cwd=REPOSITORY,
            env={name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await eventually(lambda: len(self.kept()) >= lines)
        finally:
            process.send_signal(how)
        _, said = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        return process.returncode or 0, said.decode()

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return next(self._results.glob("run_*"))

    def kept(self) -> list[Exchange]:
        """What is in its journal."""
        journals = list(self._results.glob("run_*/journal.jsonl"))
        return read_journal(journals[0]) if journals else []


async def eventually(condition: Callable[[], bool]) -> None:
    """Returns when a condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (the condition is in a file)
            await asyncio.sleep(0.02)


@pytest.mark.soak
async def test_an_evaluation_that_is_interrupted_and_killed_goes_on_and_asks_nothing_twice(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    await ready(start(spawn_service, 100), connection)
    first = Evaluation(
        tmp_path, mesh_url, "--benchmarks", "choir-mmlu", "--samples", "24", "--strategies", "majority",
        "--self-consistency", "0", "--concurrency", "4",
    )  # fmt: skip
    code, said = await first.until(4, signal.SIGINT)
    assert code == 130
    assert f"choir eval --resume {first.folder}" in said
    interrupted = first.kept()
    assert 4 <= len(interrupted) < 24

    second = Evaluation(tmp_path, mesh_url, "--resume", str(first.folder), "--concurrency", "4")
    code, _ = await second.until(len(interrupted) + 4, signal.SIGKILL)
    assert code == -signal.SIGKILL
    with (first.folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"request_id": "torn')

    folder = RunFolder.open(first.folder, "resume")
    await ask_all(resumed(folder), folder.config.options, OUT, agents=folder.config.agents, url=mesh_url)
    kept = first.kept()
    assert len(kept) == len({each.request_id for each in kept}) == 24
    assert kept[: len(interrupted)] == interrupted
    assert await stored_answers(connection) == 24 * len(MODELS)


async def test_an_agent_that_dies_mid_run_abstains_from_then_on_and_nothing_is_lost(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    services = start(spawn_service, 500, MODELS[:3], MODELS[3:])
    await ready(services, connection)
    asked = build_options(options(samples=8, timeout_s=4.0, strategies=("majority", "weighted")))
    folder_made = new_folder(tmp_path, asked)
    run = asyncio.create_task(ask_all(folder_made, asked, OUT, url=mesh_url, concurrency=4))
    await eventually(lambda: any(path.stat().st_size for path in tmp_path.glob("run_*/journal.jsonl")))
    services[-1].kill()
    folder = await asyncio.wait_for(run, DEADLINE_S)

    kept = read_journal(folder.journal)
    rows = raw_records(kept, WAYS)
    assert len(rows) == 8 * len(MODELS)
    died = [row for row in rows if row["agent"] == "delta" and row["error"] == "missing"]
    assert 1 <= len(died) <= 7 and not any(row["correct"] for row in died)
    assert all(row["text"] for row in rows if row["agent"] != "delta")
    outcomes = reaggregate(kept, WAYS, asked.strategies, asked.seed)
    for contestant in ("delta", "majority"):
        assert sum(each.missing for each in outcomes if each.contestant == contestant) == len(died)


async def test_an_evaluation_that_teaches_tells_the_mesh_each_answer_once_after_the_questions_decision(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    await ready(start(spawn_service, 20), connection)
    asked = build_options(options(samples=12, teach=True, strategies=("weighted",)))
    folder = await ask_all(new_folder(tmp_path, asked), asked, OUT, url=mesh_url)
    await ask_all(resumed(folder), asked, OUT, agents=folder.config.agents, url=mesh_url)

    right = sum(each.right == "A" for each in read_journal(folder.journal))
    assert 0 < right < 12
    async with Choir(mesh_url) as mesh:
        learnt = await mesh.scores()
    overall = {score.agent: (score.correct, score.asked) for score in learnt.accuracy if score.topic is None}
    assert overall == dict.fromkeys(MODELS, (right, 12))
    assert {score.topic for score in learnt.accuracy} > {None}

    untaught = build_options(options(samples=12, seed=43, strategies=("weighted",)))
    await ask_all(new_folder(tmp_path / "untaught", untaught), untaught, OUT, url=mesh_url)
    async with Choir(mesh_url) as mesh:
        assert (await mesh.scores()).accuracy == learnt.accuracy


def test_a_named_mesh_that_is_not_there_is_an_error_and_no_other_stands_in_for_it(tmp_path: Path) -> None:
    with pytest.raises(MeshUnreachable):
        evaluate(options(), results=tmp_path, out=OUT, url="nats://127.0.0.1:1")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_asked_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(UnknownStrategy, match="'psychic'"):
        evaluate({"strategies": ("psychic",)}, results=tmp_path, out=OUT)
    with pytest.raises(InvalidRequest, match=r"there is no file gone\.parquet"):
        evaluate({"benchmarks": ("mmlu",), "data": {"mmlu": "gone.parquet"}}, results=tmp_path, out=OUT)
    assert not list(tmp_path.iterdir())


PAIR = """
[summarizer]
replicas = 0
[metrics]
enabled = false
[[agents]]
name = "pair"
threads = 1
models = [
  { name = "choir-llama", path = "demo:choir-llama", slots = 2 },
  { name = "choir-gemma", path = "demo:choir-gemma", slots = 2 },
]
"""
Answers = dict[tuple[str, ...], tuple[Any, ...]]


async def test_the_demo_models_give_the_same_answers_and_decisions_for_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs on one mesh: as what they ask has ids of their own, everything is generated twice."""
    for name in [name for name in os.environ if name.startswith("CHOIR_")]:
        monkeypatch.delenv(name)
    asked = build_options(
        {
            "benchmarks": ("choir-mmlu", "choir-gsm8k"),
            "strategies": ("majority", "weighted", "topic", "debate"),
            "samples": 2,
            "repetitions": 2,
            "deterministic": True,
            "self_consistency": 2,
        }
    )
    (config := tmp_path / "choir.toml").write_text(PAIR)
    async with demo_mesh(config) as supervisor:
        runs = [
            await ask_all(new_folder(tmp_path / name, asked), asked, OUT, url=supervisor.url)
            for name in ("one", "two")
        ]
    one, two = (said(run) for run in runs)
    assert len(one) == 2 * 2 * 2 * (2 + 2)
    assert any(text for texts in one.values() for text in texts)
    assert one == two


def said(run: RunFolder) -> Answers:
    """What every agent said to everything, by what it was asked."""
    return {
        (each.benchmark, each.question_id, str(each.repetition), str(each.sample), answer.agent): tuple(
            [answer.text] + [again.text for again in each.further_answers if again.agent == answer.agent]
        )
        for each in read_journal(run.journal)
        for answer in each.answers
    }
