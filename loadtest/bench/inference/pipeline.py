"""A model in two stages on two nodes of one core each, against its limit, one node, and one process.

`CHOIR_BENCH_PARTS` chooses parts, all of them by default:

- hop: a frame from one process to another;
- decode: two nodes and one node with the whole model, in turns at 1 to 32 streams: five to ten minutes;
- limit: the pipeline against its limit, in turns at 1 to 64 streams: fifteen minutes. The limit is each
  stage alone, in-process, on its core, at the micro-batch that it got: for one stream the sum of both stages'
  steps, for several the slower stage. Nodes that share a machine share its memory: what both stages reach at
  the same time, in-process, is told beside it;
- balance: all layers but one begin on one node, under load: seconds until they are shared, and tokens per
  second before and after: two minutes;
- busy: layers and tokens per second before, while and after another process spins on a node's core: five
  minutes;
- prefill, memory, recovery: a long prompt, what a stage takes, a stage that is killed;
- peers: the unsplit engine on one core, and on both.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.inference.engine_alone import EngineNode
from loadtest.bench.inference.pipeline_balance import WATCHED_S, balanced, beside_a_spinner
from loadtest.bench.inference.pipeline_limits import Limits
from loadtest.bench.inference.pipeline_nodes import SETTLE_S, Nodes, memory_mb, nodes, tokens_of
from loadtest.bench.inference.stage_hop import hops_us
from loadtest.bench.report import Report, Target, at_least, at_most
from schemas.pipelines.plan import PipelinePlan
from services.engine.model.gguf.check import check_model_file, tensor_nbytes
from services.engine.model.memory.cells import cell_bytes

PARTS_VARIABLE = "CHOIR_BENCH_PARTS"
PARTS = ("hop", "balance", "busy", "decode", "limit", "prefill", "memory", "recovery", "peers")
SEQUENCES = (1, 2, 4, 8, 16, 32, 64)
DECODE_SEQUENCES = (1, 2, 4, 8, 16, 32)
CORES = (0, 1)
SLOTS, SLOTS_OF_MOVED = max(SEQUENCES), 32
CONTEXT_TOKENS = 1280
ROUNDS = 3
DECODE_S, LEAST_DECODE_ROUNDS = 150.0, 2
"""Rounds of two nodes and one begin for so long, and there are so many at least."""
PREFILL_ROUNDS = 2
LONG_PROMPT_TOKENS = 1000
LEAST_SINGLE_RATIO, LEAST_RATIO = 0.93, 0.90
LEAST_OVER_ONE_NODE, OVERLAPPING = 1.0, 4
"""So many streams keep both nodes busy: from there on two are worth it."""
LEAST_PREFILL_RATIO = 1.5
MOST_HOP_RATIO = 1.5
MOST_EXTRA_MB = 250.0
MOST_RECOVERY_S = 2.0
MOST_BALANCED_S = 60.0
RECOVERY_TOKENS = 60


@dataclass
class Measured:
    """Raw figures and targets as they come in."""

    raw: dict[str, Any] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)


def run() -> Report:
    """Measures the parts that are asked for."""
    chosen = os.environ.get(PARTS_VARIABLE, ",".join(PARTS)).split(",")
    model = write_bench_model()
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="choir-bench-") as folder:
        asyncio.run(_measure(model, Path(folder), chosen, measured))
    return Report(
        bench="pipeline",
        raw=measured.raw,
        targets=tuple(measured.targets),
        notes=(
            "a node is one core; the broker and the client share both",
            "limit: each stage alone in-process, at the micro-batch it got, in turns with the pipeline",
        ),
    )


async def _measure(model: Path, folder: Path, chosen: list[str], measured: Measured) -> None:
    size = {"slots": SLOTS, "context_tokens": CONTEXT_TOKENS}
    moved = {**size, "slots": SLOTS_OF_MOVED}
    if "peers" in chosen:
        await asyncio.to_thread(_peers, model, measured)
    if "balance" in chosen:
        await _balance(model, folder, moved, measured)
    if "busy" in chosen:
        measured.raw["busy"] = await beside_a_spinner(folder / "busy", model, moved, CORES)
    async with nodes(folder, model, size) as pair:
        if "hop" in chosen:
            await _hop(pair, measured)
        if set(chosen) <= {"hop", "balance", "busy", "peers"}:
            return
        for name, core in zip(("node-0", "node-1"), CORES, strict=True):
            pair.start(name, core)
        plan = await pair.place("node-0", "node-1")
        measured.raw["layers"] = {s.instance: f"{s.first_layer}-{s.end_layer - 1}" for s in plan.stages}
        if "decode" in chosen:
            await _decode(pair, plan, model, measured)
        if set(chosen) <= {"hop", "balance", "busy", "peers", "decode"}:
            return
        limits = Limits(model, folder, plan, CORES, size)
        try:
            if "limit" in chosen:
                await _limit(pair, plan, limits, measured)
            if "prefill" in chosen:
                await _prefill(pair, model, limits, measured)
            if "memory" in chosen:
                await _memory(pair, plan, model, measured)
            if "recovery" in chosen:
                await _recovery(pair, plan, limits, measured)
        finally:
            limits.close()


async def _hop(pair: Nodes, measured: Measured) -> None:
    url = pair.url
    found = await asyncio.to_thread(hops_us, url, CORES)
    measured.raw["hop_us"] = found
    measured.targets.append(at_most("hop_over_bare", found["stage"] / found["bare"], MOST_HOP_RATIO))


async def _balance(model: Path, folder: Path, size: dict[str, int], measured: Measured) -> None:
    found = await balanced(folder / "balance", model, size, CORES)
    measured.raw["balance"] = found
    never = found["balanced_after_s"] is None
    took_s = WATCHED_S if never else found["balanced_after_s"]
    gain = 0.0 if never else found["tokens_per_s_after"] / found["tokens_per_s_before"]
    measured.targets += [
        at_most("balanced_after_s", took_s, MOST_BALANCED_S),
        at_least("balanced_over_unbalanced", gain, 1.0),
    ]


async def _decode(pair: Nodes, plan: PipelinePlan, model: Path, measured: Measured) -> None:
    """The first round does not count: the stages still learn how many sequences go into a step."""
    speeds: dict[int, list[tuple[float, float]]] = defaultdict(list)
    batches: dict[int, list[float]] = {}
    with closing(EngineNode(CORES[:1], SLOTS, CONTEXT_TOKENS)) as alone:
        until_s, number = time.monotonic() + DECODE_S, 0
        while number <= LEAST_DECODE_ROUNDS or time.monotonic() < until_s:
            for sequences in DECODE_SEQUENCES:
                two = await pair.decode(plan, sequences)
                batches[sequences] = two.micro_batches
                one = await asyncio.to_thread(alone.tokens_per_s, model, sequences, tokens_of(sequences))
                if number > 0:
                    speeds[sequences].append((two.tokens_per_s, one))
            number += 1
    ratios = {n: [two / one for two, one in pairs] for n, pairs in speeds.items()}
    measured.raw["two_nodes_tokens_per_s"] = {
        str(n): statistics.median(t for t, _ in speeds[n]) for n in ratios
    }
    measured.raw["one_node_tokens_per_s"] = {
        str(n): statistics.median(o for _, o in speeds[n]) for n in ratios
    }
    measured.raw["two_nodes_over_one"] = {str(n): [round(r, 3) for r in sorted(ratios[n])] for n in ratios}
    measured.raw["micro_batch_of_two_nodes"] = {str(n): _told(batches[n]) for n in ratios}
    for n in ratios:
        if n >= OVERLAPPING:
            median = statistics.median(ratios[n])
            measured.targets.append(at_least(f"two_nodes_over_one_{n}", median, LEAST_OVER_ONE_NODE))


def _told(batches: list[float]) -> str:
    return "/".join(f"{batch:.1f}" for batch in batches)


async def _limit(pair: Nodes, plan: PipelinePlan, limits: Limits, measured: Measured) -> None:
    speeds: dict[int, list[float]] = defaultdict(list)
    tops: dict[int, list[float]] = defaultdict(list)
    together: dict[int, list[float]] = defaultdict(list)
    batches: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for sequences in SEQUENCES:
            found = await pair.decode(plan, sequences)
            batches[sequences] = found.micro_batches
            speeds[sequences].append(found.tokens_per_s)
            top, both = await limits.rates(found.micro_batches, sequences, tokens_of(sequences))
            tops[sequences].append(top)
            together[sequences].append(both)
    ratios = {n: statistics.median(s / t for s, t in zip(speeds[n], tops[n], strict=True)) for n in SEQUENCES}
    measured.raw["pipeline_tokens_per_s"] = {str(n): statistics.median(speeds[n]) for n in SEQUENCES}
    measured.raw["limit_tokens_per_s"] = {str(n): statistics.median(tops[n]) for n in SEQUENCES}
    measured.raw["pipeline_over_limit"] = {str(n): ratio for n, ratio in ratios.items()}
    measured.raw["both_stages_at_once_tokens_per_s"] = {
        str(n): statistics.median(together[n]) for n in SEQUENCES
    }
    measured.raw["pipeline_over_both_at_once"] = {
        str(n): statistics.median(s / t for s, t in zip(speeds[n], together[n], strict=True))
        for n in SEQUENCES
    }
    measured.raw["micro_batch"] = {str(n): _told(batches[n]) for n in SEQUENCES}
    for n, ratio in ratios.items():
        least = LEAST_SINGLE_RATIO if n == 1 else LEAST_RATIO
        measured.targets.append(at_least(f"pipeline_over_limit_{n}", ratio, least))


async def _prefill(pair: Nodes, model: Path, limits: Limits, measured: Measured) -> None:
    prompt = "x" * (LONG_PROMPT_TOKENS - 30)
    engine = EngineNode((CORES[0],), SLOTS, CONTEXT_TOKENS)
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(PREFILL_ROUNDS):
        (result,) = await pair.ask([f"{number}{prompt}"], 2)
        answer = result.answers[0]
        found["two_nodes_ms"].append(answer.timings.prompt_eval_duration_ns / 1e6)
        one_ms, tokens = await asyncio.to_thread(engine.prefill_ms, model, f"{number}{prompt}")
        found["one_node_ms"].append(one_ms)
        measured.raw["prefill_tokens"] = {"two_nodes": answer.prompt_tokens, "one_node": tokens}
    engine.close()
    alone = [await asyncio.to_thread(limits.prefill_ms, stage, LONG_PROMPT_TOKENS) for stage in (0, 1)]
    medians = {name: statistics.median(times) for name, times in found.items()}
    measured.raw["prefill"] = {**medians, "stages_alone_ms": "/".join(f"{ms:.0f}" for ms in alone)}
    ratio = medians["one_node_ms"] / medians["two_nodes_ms"]
    measured.targets.append(at_least("prefill_two_nodes_over_one", ratio, LEAST_PREFILL_RATIO))


async def _memory(pair: Nodes, plan: PipelinePlan, model: Path, measured: Measured) -> None:
    """Beyond its part of the file and its cells, after every slot was in use."""
    await pair.ask([f"{slot} fills its slot" for slot in range(SLOTS)], 4)
    per_cell = cell_bytes(check_model_file(model))
    file_mb = sum(tensor_nbytes(tensor) for tensor in check_model_file(model).tensors) / 1e6
    extra = {}
    for stage in plan.stages:
        layers = stage.end_layer - stage.first_layer
        share = file_mb * layers / plan.layers
        cells = per_cell * layers * plan.slots * plan.context_tokens / 1e6
        extra[stage.instance] = memory_mb(pair.processes[stage.instance]) - share - cells
    measured.raw["memory_beyond_share_and_cache_mb"] = extra
    measured.targets.append(at_most("memory_beyond_share_and_cache_mb", max(extra.values()), MOST_EXTRA_MB))


async def _recovery(pair: Nodes, plan: PipelinePlan, limits: Limits, measured: Measured) -> None:
    """The last stage is killed while eight sequences decode; a standby is there."""
    pair.start("standby", CORES[1])
    await pair.offered("standby")
    prompts = [f"Sequence {number} reads:" for number in range(8)]
    async with pair.journal(plan) as journal:
        asking = asyncio.create_task(pair.ask(prompts, RECOVERY_TOKENS))
        await journal.has_tokens(8 * RECOVERY_TOKENS // 2)
        killed_s = time.perf_counter()
        pair.processes["node-1"].kill()
        results = await asking
    resumed_s = min(at_s for at_s, _ in journal.tokens if at_s > killed_s + SETTLE_S / 2)
    rows = sum(r.answers[0].prompt_tokens for r in results) + 8 * RECOVERY_TOKENS // 2
    replay_s = await asyncio.to_thread(limits.prefill_ms, 1, min(rows, CONTEXT_TOKENS - 1)) / 1000
    measured.raw["recovery"] = {
        "silence_s": resumed_s - killed_s,
        "replay_s": replay_s,
        "replayed_tokens": rows,
    }
    measured.targets.append(
        at_most("resumed_s_without_replay", resumed_s - killed_s - replay_s, MOST_RECOVERY_S)
    )


def _peers(model: Path, measured: Measured) -> None:
    """The unsplit engine: on one node, and on both cores."""
    for name, cores in (("one_node", CORES[:1]), ("one_process_both_cores", CORES)):
        engine = EngineNode(cores, SLOTS, CONTEXT_TOKENS)
        found = {str(n): engine.tokens_per_s(model, n, tokens_of(n)) for n in SEQUENCES}
        engine.close()
        measured.raw[f"{name}_tokens_per_s"] = found
