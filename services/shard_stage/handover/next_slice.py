"""The next slice of a stage: what it lacks for a move of the cut, loaded while it works with the old one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from schemas.errors import ChoirError
from services.chassis.logs import get_logger
from services.chassis.process.supervise import log_failure
from services.engine.decode.stage_context import StageContext
from services.shard_stage.handover.assignment import Assignment
from services.shard_stage.handover.loading import load_slice
from services.shard_stage.probe.capability import ModelSource
from services.shard_stage.probe.slice_cache import SliceCache

log = get_logger("shard_stage.next_slice")


class NextSlice:
    """At most one slice at hand for a move of the cut: on the disk, and loaded as well where both slices fit
    into `memory_bytes`. `on_ready` is called on this loop when it is there."""

    def __init__(
        self, slices: SliceCache, threads: int, memory_bytes: int, on_ready: Callable[[], None]
    ) -> None:
        self._slices = slices
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._on_ready = on_ready
        self._wanted: Assignment | None = None
        self._context: StageContext | None = None
        self._is_ready = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> range | None:
        """The layers that are at hand."""
        return self._wanted.layers if self._wanted is not None and self._is_ready else None

    def follow(self, place: Assignment | None, source: ModelSource | None) -> None:
        """Makes ready for what the plan says that comes after this place; forgets what it says no more."""
        following = place.next if place is not None else None
        if following is not None and self._wanted is not None and self._wanted.same_place(following):
            return
        self._drop(self._let_go())
        if place is None or source is None or following is None or following.same_place(place):
            return
        self._wanted = following
        room = self._memory_bytes - place.need_bytes(source.shardable)
        loads = following.need_bytes(source.shardable) <= room
        self._start(self._make_ready(following, source, loads=loads))

    def take(self, place: Assignment) -> StageContext | None:
        """Hands over what was loaded for a place; None if nothing was."""
        if self._wanted is None or not self._wanted.same_place(place):
            return None
        return self._let_go()

    async def close(self) -> None:
        """Frees what was loaded, after what is under way."""
        self._drop(self._let_go())
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _make_ready(self, wanted: Assignment, source: ModelSource, *, loads: bool) -> None:
        context: StageContext | None = None
        try:
            path = await asyncio.to_thread(
                self._slices.slice_of, source.content, source.shardable.sha256, wanted.layers
            )
            if loads and self._wanted is wanted:
                context = await asyncio.to_thread(load_slice, path, wanted, self._threads, source.gpu_layers)
                wanted.check(context)
        except ChoirError as error:
            log.error("a slice for the next cut cannot be had", why=error.message)
            self._drop(context)
            return
        if self._wanted is not wanted:
            self._drop(context)
            return
        self._context, self._is_ready = context, True
        log.info("ready for the next cut", model=wanted.plan.model, stage=wanted.stage, loaded=loads)
        self._on_ready()

    def _let_go(self) -> StageContext | None:
        context, self._context, self._wanted, self._is_ready = self._context, None, None, False
        return context

    def _drop(self, context: StageContext | None) -> None:
        if context is not None:
            self._start(asyncio.to_thread(context.close))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="next slice")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(log_failure)
