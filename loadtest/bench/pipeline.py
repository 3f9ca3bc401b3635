"""A model in two stages on two nodes of one core each, against its limit, one node, and one process.

The limit is measured in the same run, in turns with the pipeline: each stage alone, in-process, on its core,
at the micro-batch that it got. For one stream it is the sum of both stages' steps, for several the slower
stage. Nodes that share a machine share its memory: what both stages reach at the same time, in-process, is
told beside it. `CHOIR_BENCH_PARTS` (hop, decode, prefill, memory, recovery, peers) chooses parts.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.bench_model import write_bench_model
from loadtest.bench.engine_alone import EngineNode
from loadtest.bench.pipeline_nodes import Nodes, memory_mb, nodes
from loadtest.bench.report import Report, Target, at_least, at_most
from loadtest.bench.stage_alone import Node
from loadtest.bench.stage_hop import hops_us
from schemas.pipelines import PipelinePlan
from services.engine.model.gguf_check import check_model_file, tensor_nbytes
from services.shard_stage.probe.capability import cell_bytes
from services.shard_stage.probe.slice_cache import SliceCache, checksum

PARTS_VARIABLE = "CHOIR_BENCH_PARTS"
PARTS = ("hop", "decode", "prefill", "memory", "recovery", "peers")
SEQUENCES = (1, 2, 4, 8, 16, 32)
CORES = (0, 1)
SLOTS = 32
CONTEXT_TOKENS = 1280
ROUNDS = 3
PREFILL_ROUNDS = 2
LEAST_TOKENS, MOST_TOKENS = 24, 64
LIMIT_STEPS = 24
NEGLIGIBLE = 0.05
LONG_PROMPT_TOKENS = 1000
LEAST_SINGLE_RATIO, LEAST_RATIO = 0.93, 0.90
LEAST_PREFILL_RATIO = 1.5
MOST_HOP_RATIO = 1.5
MOST_EXTRA_MB = 250.0
MOST_RECOVERY_S = 2.0
SETTLE_S = 1.2
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
    if "peers" in chosen:
        await asyncio.to_thread(_peers, model, measured)
    async with nodes(folder, model, size) as pair:
        if "hop" in chosen:
            await _hop(pair, measured)
        if set(chosen) <= {"hop", "peers"}:
            return
        for name, core in zip(("node-0", "node-1"), CORES, strict=True):
            pair.start(name, core)
        plan = await pair.place("node-0", "node-1")
        measured.raw["layers"] = {s.instance: f"{s.first_layer}-{s.end_layer - 1}" for s in plan.stages}
        limits = Limits(model, folder, plan)
        try:
            if "decode" in chosen:
                await _decode(pair, plan, limits, measured)
            if "prefill" in chosen:
                await _prefill(pair, model, limits, measured)
            if "memory" in chosen:
                await _memory(pair, plan, model, measured)
            if "recovery" in chosen:
                await _recovery(pair, plan, limits, measured)
        finally:
            limits.close()


class Limits:
    """The stages of the plan, each alone in a process on the core of its node."""

    def __init__(self, model: Path, folder: Path, plan: PipelinePlan) -> None:
        cache, sha256 = SliceCache(folder / "slices"), checksum(model, None)
        self._slices = [
            cache.slice_of(model, sha256, range(stage.first_layer, stage.end_layer)) for stage in plan.stages
        ]
        self._nodes = [Node((core,), SLOTS, CONTEXT_TOKENS) for core in CORES]

    async def rates(self, batches: list[float], sequences: int, position: int) -> tuple[float, float]:
        """The most tokens a second at these micro-batches, measured one stage after the other, and both at
        once: one stream passes the stages one after another, several keep all of them busy."""
        alone = [await asyncio.to_thread(self.step_ms, s, batch, position) for s, batch in enumerate(batches)]
        if sequences == 1:
            return 1000 / sum(alone), 1000 / sum(alone)
        both = [asyncio.to_thread(self.step_ms, s, batch, position) for s, batch in enumerate(batches)]
        together = await asyncio.gather(*both)
        return _slowest(batches, alone), _slowest(batches, together)

    def step_ms(self, stage: int, sequences: float, position: int) -> float:
        """The mean step of a stage with so many sequences, since the pipeline's rate is a mean too; between
        whole numbers by interpolation."""
        low = max(1, int(sequences))
        share = max(0.0, sequences - low)
        low_ms = self._mean_ms(stage, low, position)
        if share < NEGLIGIBLE:
            return low_ms
        return low_ms + share * (self._mean_ms(stage, low + 1, position) - low_ms)

    def prefill_ms(self, stage: int, tokens: int) -> float:
        """The time in which a stage reads a prompt."""
        return self._nodes[stage].prefill_ms(self._slices[stage], tokens)

    def _mean_ms(self, stage: int, sequences: int, position: int) -> float:
        node, path = self._nodes[stage], self._slices[stage]
        return statistics.mean(node.decode_step_ms(path, sequences, LIMIT_STEPS, position))

    def close(self) -> None:
        """Ends the processes."""
        for node in self._nodes:
            node.close()


def _slowest(batches: list[float], steps_ms: list[float]) -> float:
    return min(1000 * batch / ms for batch, ms in zip(batches, steps_ms, strict=True))


async def _hop(pair: Nodes, measured: Measured) -> None:
    url = pair.url
    found = await asyncio.to_thread(hops_us, url, CORES)
    measured.raw["hop_us"] = found
    measured.targets.append(at_most("hop_over_bare", found["stage"] / found["bare"], MOST_HOP_RATIO))


async def _decode(pair: Nodes, plan: PipelinePlan, limits: Limits, measured: Measured) -> None:
    speeds: dict[int, list[float]] = defaultdict(list)
    tops: dict[int, list[float]] = defaultdict(list)
    together: dict[int, list[float]] = defaultdict(list)
    batches: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for sequences in SEQUENCES:
            speed, found = await _decode_once(pair, plan, sequences)
            batches[sequences] = found
            speeds[sequences].append(speed)
            top, both = await limits.rates(found, sequences, _tokens(sequences))
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
    measured.raw["micro_batch"] = {str(n): "/".join(f"{b:.1f}" for b in batches[n]) for n in SEQUENCES}
    for n, ratio in ratios.items():
        least = LEAST_SINGLE_RATIO if n == 1 else LEAST_RATIO
        measured.targets.append(at_least(f"pipeline_over_limit_{n}", ratio, least))


def _tokens(sequences: int) -> int:
    return max(LEAST_TOKENS, MOST_TOKENS - 2 * sequences)


async def _decode_once(pair: Nodes, plan: PipelinePlan, sequences: int) -> tuple[float, list[float]]:
    """Tokens per second while all sequences speak, and the mean micro-batch of each stage."""
    prompts = [f"Sequence {number} reads:" for number in range(sequences)]
    async with pair.journal(plan) as journal:
        await pair.ask(prompts, _tokens(sequences))
        await asyncio.sleep(SETTLE_S)
    return journal.tokens_per_s(), [journal.speaking_batch(stage) for stage in range(len(plan.stages))]


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
    """The last stage is killed while eight sequences speak; a standby is there."""
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
        found = {str(n): engine.tokens_per_s(model, n, _tokens(n)) for n in SEQUENCES}
        engine.close()
        measured.raw[f"{name}_tokens_per_s"] = found
