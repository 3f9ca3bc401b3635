"""Options that agents of a real mesh score: log-likelihoods are those of llama.cpp, nothing is asked twice,
and the records say of which file they are."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from nats.aio.client import Client

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.run_folder import RunFolder
from analysis.evaluation.asking.session import ask_all, new_folder
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.likelihood.table import likelihood_rows
from analysis.evaluation.likelihood.votes import one_for_each_question
from analysis.evaluation.options import build_options
from analysis.evaluation.provenance.cache import AnswerCache
from analysis.evaluation.reporting.outputs import write_outputs
from analysis.evaluation.reporting.raw_records import raw_records
from analysis.evaluation.tests.benchmarks.test_published_files import ARC_HUB, HELLASWAG, MC_TASK, written
from infra.demo_models.family import FOLDER
from infra.testing.plugin import SpawnService
from schemas import subjects
from services.client.bulk.progress import PlainReporter
from services.engine.model.identity import file_identity

pytestmark = pytest.mark.long

MODEL = "choir-llama"
FILE = FOLDER / f"{MODEL}.gguf"
OUT = PlainReporter(sys.stderr)
TOLERANCE = 1e-3


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return (MODEL,)


def direct(model: llama_cpp.Llama, before: str, text: str) -> float:
    """The log-likelihood of a text after another one, by llama-cpp-python alone."""
    known = model.tokenize(before.encode(), add_bos=True, special=True)
    tokens = model.tokenize((before + text).encode(), add_bos=True, special=True)
    model.reset()
    model.eval(tokens)
    logits = np.array(model.scores[: len(tokens)], dtype=np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(sum(logprobs[place - 1, tokens[place]] for place in range(len(known), len(tokens))))


def following(kept: Exchange) -> float:
    """The log-likelihood of a record, and 0 of one that failed."""
    assert kept.scored is not None, kept.error
    return kept.scored.log_likelihood


async def stored_results(connection: Client) -> int:
    """How many results the mesh has ever stored."""
    return (await connection.jetstream().stream_info(subjects.RESULTS_STREAM)).state.last_seq


async def started(connection: Client, spawn_service: SpawnService) -> None:
    """A mesh with one demo model."""
    agent: dict[str, Any] = {
        "name": "agent-one",
        "threads": 1,
        "models": [{"name": MODEL, "path": str(FILE), "slots": 2}],
    }
    services = [spawn_service("router"), spawn_service("aggregator"), spawn_service("agent", agent=agent)]
    for service in services:
        await service.wait_ready(connection)


@pytest.mark.soak
async def test_every_score_of_a_whole_set_is_llama_cpp_s_own(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    await started(connection, spawn_service)
    said = {"benchmarks": ("choir-truthfulqa",), "prompts": ("q-a",), "extraction": "likelihood"}
    options = build_options({**said, "strategies": ("majority",), "timeout_s": 600.0})
    folder = await ask_all(new_folder(tmp_path, options), options, OUT, url=mesh_url)
    kept = read_journal(folder.journal)
    assert len(kept) == sum(len(each.choices) for each in kept if each.sample == 0)
    await asyncio.to_thread(same_as_direct, kept)
    await asyncio.to_thread(write_outputs, folder)
    (told,) = json.loads((folder.path / "likelihood.json").read_text())
    summary = json.loads((folder.path / "summary.json").read_text())
    voted = {row["contestant"]: row["accuracy"] for row in summary}
    assert voted[MODEL] == voted["majority"] == pytest.approx(told["acc"]) and 0 < told["mc2"] < 1
    assert "Options by their log-likelihood" in (folder.path / "report.html").read_text()


async def test_scores_are_llama_cpp_s_own_and_a_second_run_takes_them_from_the_cache(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    await started(connection, spawn_service)
    rows: dict[str, dict[str, Any]] = {"arc-easy": ARC_HUB, "hellaswag": HELLASWAG, "truthfulqa": MC_TASK}
    names, files = tuple(rows), {name: written(tmp_path / f"{name}.jsonl", row) for name, row in rows.items()}
    options = build_options({"benchmarks": names, "data": files, "strategies": ("majority", "average")})
    cache = AnswerCache(tmp_path / "answers.sqlite")

    first = await ask_all(new_folder(tmp_path / "one", options), options, OUT, url=mesh_url, cache=cache)
    asked = await stored_results(connection)
    again = await ask_all(new_folder(tmp_path / "two", options), options, OUT, url=mesh_url, cache=cache)
    assert await stored_results(connection) == asked == 3 + 4 + 4
    only = {"benchmarks": names[:1], "data": {names[0]: files[names[0]]}}
    other = build_options({**only, "cache": False, "strategies": ("majority",)})
    await ask_all(new_folder(tmp_path / "three", other), other, OUT, url=mesh_url)
    assert await stored_results(connection) == asked + 3

    kept, repeated = read_journal(first.journal), read_journal(again.journal)
    assert not any(each.from_cache for each in kept)
    assert {each.from_cache[MODEL] for each in repeated} == {each.request_id for each in kept}
    scores = {(each.benchmark, each.sample): following(each) for each in repeated}
    assert scores == {(each.benchmark, each.sample): following(each) for each in kept}
    await asyncio.to_thread(same_as_direct, kept)
    check_records(again)


def same_as_direct(kept: list[Exchange]) -> None:
    """Every score, once more without Choir, with keys and values in the form that the engine has them in."""
    form = {"type_k": llama_cpp.GGML_TYPE_Q8_0, "type_v": llama_cpp.GGML_TYPE_F16, "flash_attn": True}
    model = llama_cpp.Llama(str(FILE), n_ctx=512, logits_all=True, verbose=False, n_threads=1, **form)
    for each in kept:
        assert each.scored is not None
        expected = direct(model, each.prompt, f" {each.scored.text}")
        assert each.scored.log_likelihood == pytest.approx(expected, abs=TOLERANCE), each.scored.text
    model.close()


def check_records(run: RunFolder) -> None:
    """What a run says of where its figures are from, and what its scores come to."""
    known = run.config.models[MODEL]
    assert known.sha256_of_samples == file_identity(FILE)
    assert known.quantisation and len(known.chat_template_sha256 or "") == 64
    kept = read_journal(run.journal)
    ways = {name: described["extraction"] for name, described in run.config.benchmarks.items()}
    records = raw_records(kept, ways, run.config.models)
    assert {row["model_identity"] for row in records} == {known.sha256_of_samples}
    whole = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert {row["model_sha256"] for row in records} <= {whole, None}  # an agent that has just begun reads it
    assert all(row["from_cache"] for row in records) and {row["purpose"] for row in records} == {"score"}
    table = {row["benchmark"]: row for row in likelihood_rows(kept)}
    assert 0 < table["truthfulqa"]["mc2"] < 1 and table["hellaswag"]["mc2"] is None
    outcomes = reaggregate(one_for_each_question(kept, ways), ways, ("majority", "average"), 1)
    assert all(outcome.cached and outcome.latency_s is None for outcome in outcomes)
    voted = {each.contestant: each.right for each in outcomes if each.benchmark == "hellaswag"}
    assert voted[MODEL] == voted["majority"] == bool(table["hellaswag"]["acc_norm"])
