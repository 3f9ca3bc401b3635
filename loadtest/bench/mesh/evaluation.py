"""Measures whether an evaluation keeps the mesh busy: its wall time against the time of the models, by slots.

Three meshes, one after another: models that answer after 250 ms and need no processor (as if each had a host
of its own); two of the size of Qwen2-0.5B with random weights, of which each takes seconds for an answer on
one core; and the demo models, which answer in some 30 ms, so that broker and services are as busy as they.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.run_folder import RunFolder
from analysis.evaluation.asking.session import ask_all, new_folder
from analysis.evaluation.options import EvalOptions, build_options
from infra.demo_models.bench_model import write_bench_model
from infra.host.demo_mesh import demo_mesh
from infra.settings import DEMO_CONFIG
from loadtest.bench.report import Report, at_most
from services.client.bulk.progress import PlainReporter

SLOTS = 4
DELAY_MS = 250
LARGE_TOKENS = 16
INSTANT_AGENTS = ("alpha", "beta", "gamma", "delta")
LARGE_AGENTS = ("large-one", "large-two")
MOST_RATIO = 1.1
STRATEGIES = ("majority", "weighted", "isp", "topic", "ow_l", "ow_i", "dawid_skene")

Figures = dict[str, Any]


def run() -> Report:
    """Evaluates choir-mmlu on each mesh."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder)))


async def _run(folder: Path) -> Report:
    instant = "".join(
        f'[[agents]]\nname = "{name}"\nbackend = "instant"\n'
        f'models = [{{ name = "{name}", slots = {SLOTS}, reply = "A", delay_ms = {DELAY_MS} }}]\n'
        for name in INSTANT_AGENTS
    )
    path = write_bench_model()
    large = "".join(
        f'[[agents]]\nname = "{name}"\nthreads = 1\n'
        f'models = [{{ name = "{name}", path = "{path}", slots = {SLOTS}, context_tokens = 1024 }}]\n'
        for name in LARGE_AGENTS
    )
    measured = {
        "answers_after_250_ms": await _evaluate(_config(folder, "instant", instant), 208),
        "large_models": await _evaluate(_config(folder, "large", large), 60, max_tokens=LARGE_TOKENS),
        "demo_models": await _evaluate(DEMO_CONFIG, 379),
    }
    return Report(
        bench="evaluation",
        raw=measured,
        targets=tuple(at_most(f"wall_over_model_{n}", f["ratio"], MOST_RATIO) for n, f in measured.items()),
        notes=("ratio: wall time / (sum of the answers' total durations / slots of all models)",),
    )


def _config(folder: Path, name: str, agents: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(agents)
    return path


async def _evaluate(config: Path, questions: int, **options: Any) -> Figures:
    """One evaluation on a mesh of its own."""
    asked = build_options(
        {
            "benchmarks": ("choir-mmlu",),
            "strategies": STRATEGIES,
            "samples": questions,
            "self_consistency": 0,
            "deterministic": True,
        }
        | options
    )
    with tempfile.TemporaryDirectory() as results:
        async with demo_mesh(config) as supervisor:
            folder = await _asked(supervisor.url, asked, Path(results))
        return _figures(folder, sum(folder.config.slots.values()))


async def _asked(url: str, asked: EvalOptions, results: Path) -> RunFolder:
    return await ask_all(new_folder(results, asked), asked, PlainReporter(sys.stderr), url=url)


def _figures(folder: RunFolder, slots: int) -> Figures:
    kept = read_journal(folder.journal)
    model_s = [answer.timings.total_duration_ns / 1e9 for each in kept for answer in each.answers]
    wall_s = max(e.asked_at_s + e.wall_s for e in kept) - min(e.asked_at_s for e in kept)
    return {
        "answers": len(model_s),
        "slots": slots,
        "wall_s": wall_s,
        "answers_per_s": len(model_s) / wall_s,
        "model_s_per_answer": sum(model_s) / len(model_s),
        "ratio": wall_s * slots / sum(model_s),
    }
