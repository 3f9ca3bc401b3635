"""What an effort spares in a running mesh: calls and tokens, what is decided otherwise, how long it takes.

Two kinds of members. Simulated ones, 4, 5 and 9 of them, that err independently and answer after 100 ms:
every question is asked in full, with an exact effort and with a bounded one, and the answers are compared.
And the four demo models on choir-mmlu, who err together. Feedback on other questions has taught the weights
before.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from analysis.evaluation.asking.plan import items
from analysis.evaluation.asking.protocol import open_protocol
from analysis.evaluation.options import build_options
from analysis.statistics.intervals import clopper_pearson
from infra.host.demo_mesh import demo_mesh
from loadtest.bench.processes import bench_mesh
from loadtest.bench.report import Report, at_most
from loadtest.bench.voters import LETTERS, question, right_letter
from schemas.replies import Result
from services.client.client import Choir
from services.client.request_builder import AskOptions

ACCURACIES = (0.9, 0.8, 0.75, 0.7, 0.85, 0.65, 0.8, 0.6, 0.7)
"""Of the simulated members, in their order."""
COUNTS = (4, 5, 9)
DELAY_MS = 100
TAUGHT, QUESTIONS, TIMED = 40, 120, 24
DEMO_TAUGHT, DEMO_QUESTIONS = 60, 120
STRATEGIES = ("majority", "weighted")
EPSILON = 0.05
EFFORTS: dict[str, AskOptions] = {
    "full": {},
    "exact": {"effort": "exact"},
    "bounded": {"effort": "bounded", "epsilon": EPSILON},
}
AT_ONCE = 8
MOST_LATENCY = 1.5
DEMO_MODELS = ("choir-llama", "choir-qwen", "choir-phi", "choir-gemma")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What is asked, the right letter, and how it is asked."""

    prompt: str
    right: str
    options: AskOptions


@dataclass
class Count:
    """One strategy with one effort, over all questions."""

    members: int
    waves: list[int] = field(default_factory=list)
    calls: int = 0
    tokens: int = 0
    changed: int = 0
    right: int = 0

    def add(self, result: Result, full: Result, right: str) -> None:
        """Counts one question."""
        answer = result.decisions[0].answer
        self.calls += self.members if result.cascade is None else self.members - result.cascade.saved_calls
        self.tokens += sum(each.prompt_tokens + each.generated_tokens for each in result.answers)
        self.waves.append(1 if result.cascade is None else len(result.cascade.waves))
        self.changed += answer != full.decisions[0].answer
        self.right += answer == right

    def figures(self, full: Count) -> Figures:
        """Beside the full vote."""
        asked = len(self.waves)
        return {
            "saved_calls": round(1 - self.calls / full.calls, 4),
            "saved_tokens": round(1 - self.tokens / full.tokens, 4),
            "waves": round(statistics.mean(self.waves), 3),
            "changed": self.changed,
            "changed_at_most_95": round((clopper_pearson(self.changed, asked).interval or (0.0, 1.0))[1], 4),
            "accuracy": round(self.right / asked, 4),
        }


def run() -> Report:
    """Measures each mesh, one after another."""
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(_run(Path(folder)))


async def _run(folder: Path) -> Report:
    measured: dict[str, Figures] = {}
    for count in COUNTS:
        measured |= await _simulated(folder / str(count), count)
    measured |= await _demo()
    bounded = [figures for name, figures in measured.items() if "bounded" in name and "latency" not in name]
    exact = [figures for name, figures in measured.items() if "exact" in name and "latency" not in name]
    asked = len(STRATEGIES) * (len(COUNTS) * QUESTIONS + DEMO_QUESTIONS)
    changed = sum(figures["changed"] for figures in bounded)
    limits = clopper_pearson(changed, asked).interval or (0.0, 1.0)
    latencies = {name: figures for name, figures in measured.items() if "latency" in name}
    return Report(
        bench="cascade",
        raw=measured
        | {
            "bounded, all questions": {
                "asked": asked,
                "changed": changed,
                "low": limits[0],
                "high": limits[1],
            }
        },
        targets=(
            at_most("exact_changed", sum(figures["changed"] for figures in exact), 0),
            at_most("bounded_changed_upper_end", limits[1], EPSILON),
            *(
                at_most(f"{name}_{effort}_over_full", figures[f"{effort}_over_full"], MOST_LATENCY)
                for name, figures in latencies.items()
                for effort in ("exact", "bounded")
            ),
        ),
        notes=(
            "changed_at_most_95: the upper end of the exact 95 % interval (Clopper and Pearson)",
            "of a majority at most 25, 40 and 44 % of 4, 5 and 9 calls can be spared exactly",
        ),
    )


async def _simulated(folder: Path, count: int) -> dict[str, Figures]:
    names = [f"voter-{number}" for number in range(1, count + 1)]
    members = [f"{name}={x}" for name, x in zip(names, ACCURACIES, strict=False)]
    asked = [_simulated_question(number) for number in range(TAUGHT + QUESTIONS)]
    async with bench_mesh(folder, names) as mesh:
        mesh.spawn("services.router")
        mesh.spawn("services.aggregator")
        mesh.spawn("loadtest.bench.voters", mesh.url, str(DELAY_MS), *members)
        await mesh.wait_ready(names)
        async with Choir(mesh.url) as client:
            return await _measure(client, f"{count} members", names, asked, TAUGHT)


def _simulated_question(number: int) -> Question:
    asked = question(number)
    return Question(asked, right_letter(asked), {"choices": tuple(LETTERS), "topic": "numbers"})


async def _demo() -> dict[str, Figures]:
    options = build_options({"benchmarks": ("choir-mmlu",), "samples": DEMO_TAUGHT + DEMO_QUESTIONS})
    protocol = open_protocol("choir-mmlu", options)
    asked = [
        Question(
            item.prompt,
            item.question.right,
            {
                "choices": item.question.choices,
                "topic": item.question.topic,
                "answer_kind": item.question.kind,
                "max_tokens": item.max_tokens,
                "stop": item.stop,
                "temperature": 0.0,
            },
        )
        for item in items(options, {"choir-mmlu": protocol})
    ]
    async with demo_mesh(None) as supervisor, Choir(supervisor.url) as client:
        return await _measure(client, "demo models", DEMO_MODELS, asked, DEMO_TAUGHT)


async def _measure(
    client: Choir, name: str, members: Sequence[str], asked: Sequence[Question], taught: int
) -> dict[str, Figures]:
    for each in asked[:taught]:
        result = await _ask(client, members, each, "majority", {})
        await client.feedback(result.request_id, each.right)
    rest = asked[taught:]
    counts = {(s, effort): Count(len(members)) for s in STRATEGIES for effort in EFFORTS}
    turns = iter(rest)

    async def worker() -> None:
        for each in turns:
            for strategy in STRATEGIES:
                results = {e: await _ask(client, members, each, strategy, o) for e, o in EFFORTS.items()}
                for effort, result in results.items():
                    counts[strategy, effort].add(result, results["full"], each.right)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    figures = {
        f"{name}, {strategy}, {effort}": count.figures(counts[strategy, "full"])
        for (strategy, effort), count in counts.items()
    }
    return figures | {f"{name}, latency": await _latency(client, members, rest[:TIMED])}


async def _latency(client: Choir, members: Sequence[str], asked: Sequence[Question]) -> Figures:
    """One request at a time, the efforts in turn: means, for a cascade takes as long as its waves."""
    taken: dict[str, list[float]] = {effort: [] for effort in EFFORTS}
    for each in asked:
        for effort, options in EFFORTS.items():
            started = time.perf_counter()
            await _ask(client, members, each, "majority", options)
            taken[effort].append((time.perf_counter() - started) * 1000)
    means = {effort: statistics.mean(times) for effort, times in taken.items()}
    return {
        **{f"{effort}_mean_ms": round(mean, 1) for effort, mean in means.items()},
        **{f"{effort}_p50_ms": round(statistics.median(times), 1) for effort, times in taken.items()},
        **{f"{effort}_over_full": round(means[effort] / means["full"], 3) for effort in ("exact", "bounded")},
    }


async def _ask(
    client: Choir, members: Sequence[str], each: Question, strategy: str, effort: AskOptions
) -> Result:
    options: AskOptions = {**each.options, **effort, "models": members, "strategies": (strategy,)}
    return await client.ask(each.prompt, **options)
