"""A stage service: what it offers to pipelines, and the stage that it holds of one of them."""

from __future__ import annotations

import asyncio

import psutil

from schemas.errors import ChoirError, ErrorBody
from schemas.pipelines import StageOffer
from services.chassis.lease import Load
from services.chassis.logs import get_logger
from services.chassis.service import Mesh
from services.engine.engine import usable_cores
from services.shard_stage.hop import measured_hop_ms
from services.shard_stage.offer import Source, open_source
from services.shard_stage.settings import StageModelSection, StageSettings
from services.shard_stage.slices import SliceCache

log = get_logger("shard_stage")


class ShardStage:
    """Holds one stage of a pipeline, or stands by for one. What it cannot use is said in its lease."""

    def __init__(self, settings: StageSettings) -> None:
        self._section = settings.stage
        self._threads = self._section.threads or usable_cores()
        self._memory_bytes = self._section.memory_bytes or psutil.virtual_memory().available
        self._slices = SliceCache(self._section.cache_folder)
        self._sources: dict[str, Source] = {}
        self._problem: ErrorBody | None = None
        self._hop_ms = 0.0

    async def start(self, mesh: Mesh) -> None:
        """Measures what it has to offer."""
        for model in self._section.models:
            await self._open(model)
        self._hop_ms = await measured_hop_ms(mesh.client)

    async def _open(self, model: StageModelSection) -> None:
        try:
            source = await asyncio.to_thread(open_source, model, self._slices, self._threads)
        except ChoirError as error:
            log.error("model cannot be offered", model=model.name, why=error.message)
            self._problem = error.body()
        else:
            self._sources[model.name] = source

    async def stop(self) -> None:
        """Gives up what it holds."""

    def load(self) -> Load:
        """Broken only if not a single model can be offered."""
        return Load(
            state="ready" if self._sources else "broken",
            problem=None if self._sources else self._problem,
            stage=self._offer(),
        )

    def _offer(self) -> StageOffer:
        return StageOffer(
            models=tuple(source.shardable for source in self._sources.values()),
            memory_bytes=self._memory_bytes,
            threads=self._threads,
            hop_ms=self._hop_ms,
        )
