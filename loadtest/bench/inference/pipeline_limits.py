"""The limit of a pipeline: its stages, each alone in a process on the core of its node."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from loadtest.bench.inference.stage_alone import Node
from schemas.pipelines.plan import PipelinePlan
from services.engine.model.identity import checksum
from services.shard_stage.probe.slice_cache import SliceCache

STEPS = 24
NEGLIGIBLE = 0.05


class Limits:
    """The stages of the plan, each alone in a process on the core of its node."""

    def __init__(
        self, model: Path, folder: Path, plan: PipelinePlan, cores: tuple[int, ...], size: dict[str, int]
    ) -> None:
        """Stage k runs on `cores[k]`; `size` has the slots and the context of a stage."""
        cache, sha256 = SliceCache(folder / "slices"), checksum(model)
        self._slices = [
            cache.slice_of(model, sha256, range(stage.first_layer, stage.end_layer)) for stage in plan.stages
        ]
        self._nodes = [Node((core,), **size) for core in cores]

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
        return statistics.mean(node.decode_step_ms(path, sequences, STEPS, position))

    def close(self) -> None:
        """Ends the processes."""
        for node in self._nodes:
            node.close()


def _slowest(batches: list[float], steps_ms: list[float]) -> float:
    return min(1000 * batch / ms for batch, ms in zip(batches, steps_ms, strict=True))
