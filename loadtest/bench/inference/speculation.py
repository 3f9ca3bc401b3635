"""One stream through a pipeline that guesses tokens ahead, against the same pipeline without, in turns.

How many guesses are right is set by a proposer that knows the text (`infra/testing/stand_ins/knowing.py`).
Each stage has a core of its own where there are as many; else they share, and the report says so. The limit
with S stages and guesses that are right with probability a is S / (a + (1 - a) S). `CHOIR_BENCH_STAGES` are
the numbers of stages, `2,3` by default. Each of them has as many rounds as end within BUDGET_S, up to
ROUNDS; the report says how many, and has each round's ratio. At most eight minutes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from infra.demo_models.bench_model import write_bench_model
from infra.testing.stand_ins.knowing_stage import tell
from loadtest.bench.inference.engine_alone import EngineNode
from loadtest.bench.inference.pipeline_nodes import Nodes, nodes
from loadtest.bench.report import Report, Target, at_least, rounds_within
from loadtest.faults import LoadtestError
from schemas.pipelines.plan import PipelinePlan

STAGES_VARIABLE = "CHOIR_BENCH_STAGES"
SERVICE = "infra.testing.stand_ins.knowing_stage"
SLOTS, CONTEXT_TOKENS = 1, 512
PROMPT = "Sequence 0 reads:"
TOKENS = 160
ROUNDS = 5
BUDGET_S = 200.0
WITHOUT = -1.0
PROBABILITIES = (WITHOUT, 0.0, 0.6, 0.8)
LEAST = {(2, 0.0): 0.97, (3, 0.0): 0.97, (2, 0.6): 1.3, (2, 0.8): 1.5, (3, 0.6): 1.5}
LEAST_OVER_ONE_NODE = 1.2


def run() -> Report:
    """Measures each number of stages."""
    model = write_bench_model()
    raw: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    targets: list[Target] = []
    cores = sorted(os.sched_getaffinity(0))
    for stages in map(int, os.environ.get(STAGES_VARIABLE, "2,3").split(",")):
        with tempfile.TemporaryDirectory(prefix="choir-bench-") as folder:
            asyncio.run(_measure(model, Path(folder), stages, cores, raw, targets))
    raw["load_after"] = os.getloadavg()[0]
    notes = ("ratios are medians of rounds; in each round all run in turns",)
    return Report(bench="speculation", raw=raw, targets=tuple(targets), notes=notes)


async def _measure(
    model: Path, folder: Path, stages: int, cores: list[int], raw: dict[str, Any], targets: list[Target]
) -> None:
    names = [f"node-{number}" for number in range(stages)]
    cache = folder / "slices"
    cache.mkdir()
    async with nodes(folder, model, {"slots": SLOTS, "context_tokens": CONTEXT_TOKENS}) as line:
        tell(cache, [], 0)
        for number, name in enumerate(names):
            line.start(name, cores[number % len(cores)], SERVICE)
        plan = await line.place(*names, draft="lookup")
        with closing(EngineNode((cores[0],), SLOTS, CONTEXT_TOKENS)) as alone:
            (prompt,) = await asyncio.to_thread(alone.prompts, model, 1)
            _, text, known = await _once(line, plan)
            rates: dict[float, list[float]] = defaultdict(list)
            one_node: list[float] = []
            for _ in rounds_within(BUDGET_S, ROUNDS):
                for probability in PROBABILITIES:
                    tell(cache, [] if probability == WITHOUT else [[*prompt, *known]], max(0.0, probability))
                    rate, found, _ = await _once(line, plan)
                    if found != text:
                        raise LoadtestError(f"the text is another one with guesses at {probability}")
                    rates[probability].append(rate)
                one_node.append(await asyncio.to_thread(alone.tokens_per_s, model, 1, TOKENS))
    _tell(stages, len(cores), rates, one_node, raw, targets)


def _tell(
    stages: int,
    cores: int,
    rates: dict[float, list[float]],
    one_node: list[float],
    raw: dict[str, Any],
    targets: list[Target],
) -> None:
    without = rates.pop(WITHOUT)
    found: dict[str, Any] = {
        "rounds": len(without),
        "tokens_of_a_text": TOKENS,
        "shared_cores": cores < stages,
        "without_tokens_per_s": without,
    }
    for probability, with_guesses in rates.items():
        ratios = [own / base for own, base in zip(with_guesses, without, strict=True)]
        found[f"over_without_at_{probability}"] = sorted(round(ratio, 3) for ratio in ratios)
        found[f"limit_at_{probability}"] = round(stages / (probability + (1 - probability) * stages), 2)
        least = LEAST.get((stages, probability))
        if least is not None:
            name = f"{stages}_stages_over_without_at_{probability}"
            targets.append(at_least(name, statistics.median(ratios), least))
    over_one = [own / one for own, one in zip(rates[0.8], one_node, strict=True)]
    found["over_one_node_at_0.8"] = sorted(round(ratio, 3) for ratio in over_one)
    if stages == 2:
        name = "2_stages_over_one_node_at_0.8"
        targets.append(at_least(name, statistics.median(over_one), LEAST_OVER_ONE_NODE))
    raw[f"{stages}_stages"] = found


async def _once(line: Nodes, plan: PipelinePlan) -> tuple[float, str, list[int]]:
    """Tokens per second, the text and its tokens."""
    async with line.journal(plan) as journal:
        (result,) = await line.ask([PROMPT], TOKENS)
    return journal.tokens_per_s(), result.text or "", journal.text
