"""How long a pipeline takes that was cut badly until it is cut well, under load, and what that is worth."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from nats.aio.msg import Msg

from loadtest.bench.inference.pipeline_nodes import MODEL, Journal, Nodes, nodes
from schemas import subjects
from schemas.events import ANY_EVENT, CutMoved
from schemas.pipelines.plan import PipelinePlan
from services.client.client import Choir

STREAMS = 8
TOKENS = 96
WATCHED_S = 90.0
CALM_S = 30.0
"""A cut that has not moved for so long is taken for balanced."""
AROUND_S = 5.0
POLL_S = 0.1


class Load:
    """A pipeline of two nodes under eight streams: its tokens, and the moves of its cut with the moments when
    their stages were ready."""

    def __init__(self, pair: Nodes, journal: Journal) -> None:
        self._pair = pair
        self.journal = journal
        self.moves: list[tuple[float, CutMoved]] = []
        self.began_s = time.perf_counter()

    async def on_event(self, msg: Msg) -> None:
        """Notes a move."""
        event = ANY_EVENT.validate_json(msg.data)
        if isinstance(event, CutMoved):
            await _is_ready(self._pair, event.epoch)
            self.moves.append((time.perf_counter(), event))

    async def until_calm(self) -> list[tuple[float, CutMoved]]:
        """Waits until the cut has not moved for CALM_S after a move, or not at all for WATCHED_S, but no
        longer than twice that; the moves."""
        since_s, known = time.perf_counter(), len(self.moves)
        while not _is_over(since_s, [at_s for at_s, _ in self.moves[known:]]):  # noqa: ASYNC110  (a time passes)
            await asyncio.sleep(POLL_S)
        return self.moves[known:]

    async def layers(self) -> str:
        """How many layers the nodes have now."""
        async with Choir(self._pair.url) as client:
            (pipeline,) = await client.pipelines()
        return "+".join(str(stage.end_layer - stage.first_layer) for stage in pipeline.stages)

    def recent_tokens_per_s(self) -> float:
        """The rate of the last CALM_S."""
        now_s = time.perf_counter()
        return _rate(self.journal, now_s - CALM_S, now_s)


@asynccontextmanager
async def _under_load(
    folder: Path, model: Path, size: dict[str, int], cores: Sequence[int], *, badly_cut: bool
) -> AsyncIterator[Load]:
    async with nodes(folder, model, size, moves_cuts=True) as pair:
        for name, core in zip(("node-0", "node-1"), cores, strict=True):
            pair.start(name, core)
        plan = await pair.place("node-0", "node-1")
        if badly_cut:
            plan = await _cut_badly(pair, plan)
        async with pair.journal(plan) as journal:
            load, going = Load(pair, journal), True
            await pair.connection.subscribe(subjects.event("router", "cut_moved"), cb=load.on_event)

            async def stream(number: int) -> None:
                asked = 0
                while going:
                    asked += 1
                    await pair.ask([f"Stream {number} asks for the {asked}. time:"], TOKENS)

            streams = [asyncio.create_task(stream(number)) for number in range(STREAMS)]
            try:
                yield load
            finally:
                going = False
                await asyncio.gather(*streams)


async def balanced(folder: Path, model: Path, size: dict[str, int], cores: Sequence[int]) -> dict[str, Any]:
    """All layers but one begin on the second of two nodes, while eight streams decode all the time.

    Seconds are those since the first stream began; a move counts when its stages are ready. `after` is the
    rate of the last CALM_S seconds, and the silence of a move the longest time without a token around it.
    """
    async with _under_load(folder, model, size, cores, badly_cut=True) as load:
        moves = await load.until_calm()
        return _told(load.journal, moves, load.began_s, time.perf_counter())


async def beside_a_spinner(
    folder: Path, model: Path, size: dict[str, int], cores: Sequence[int]
) -> dict[str, Any]:
    """A pipeline under load before, while and after another process spins on the core of its second node:
    layers and tokens per second of the last CALM_S of each time, and seconds until the last move in it."""
    found: dict[str, Any] = {}
    async with _under_load(folder, model, size, cores, badly_cut=False) as load:
        for phase in ("alone", "beside", "alone_again"):
            spins = phase == "beside"
            spinner = _spinner(cores[1]) if spins else None
            since_s = time.perf_counter()
            try:
                moves = await load.until_calm()
                found[phase] = {
                    "layers": await load.layers(),
                    "tokens_per_s": load.recent_tokens_per_s(),
                    "moved_after_s": [at_s - since_s for at_s, _ in moves],
                }
            finally:
                if spinner is not None:
                    spinner.kill()
                    spinner.wait()
    return found


def _spinner(core: int) -> psutil.Popen:
    process = psutil.Popen([sys.executable, "-c", "while True: pass"])
    process.cpu_affinity([core])
    return process


def _is_over(began_s: float, moves_s: Sequence[float]) -> bool:
    now_s = time.perf_counter()
    calm = bool(moves_s) and now_s - moves_s[-1] >= CALM_S
    return calm or (not moves_s and now_s - began_s >= WATCHED_S) or now_s - began_s >= 2 * WATCHED_S


def _told(
    journal: Journal, moves: Sequence[tuple[float, CutMoved]], began_s: float, ended_s: float
) -> dict[str, Any]:
    first_s = moves[0][0] if moves else ended_s
    return {
        "streams": STREAMS,
        "moves": [
            {
                "ready_after_s": at_s - began_s,
                "layers_before": "+".join(map(str, event.layers_before)),
                "layers": "+".join(map(str, event.layers)),
                "expected_gain": event.gain,
                "silence_s": _silence_s(journal, at_s),
            }
            for at_s, event in moves
        ],
        "balanced_after_s": moves[-1][0] - began_s if moves else None,
        "tokens_per_s_before": _rate(journal, began_s, first_s),
        "tokens_per_s_after": _rate(journal, ended_s - CALM_S, ended_s) if moves else None,
    }


def _silence_s(journal: Journal, at_s: float) -> float:
    """The longest time between two tokens of any streams in the ten seconds around a moment."""
    times = [t for t, _ in journal.tokens if abs(t - at_s) <= AROUND_S]
    return max((later - earlier for earlier, later in pairwise(times)), default=2 * AROUND_S)


def _rate(journal: Journal, start_s: float, end_s: float) -> float:
    return sum(start_s <= at_s < end_s for at_s, _ in journal.tokens) / (end_s - start_s)


async def _cut_badly(pair: Nodes, plan: PipelinePlan) -> PipelinePlan:
    """The same plan in its next epoch, with one layer in the first stage; returns when it can be asked."""
    ends = (1, plan.layers)
    stages = tuple(
        stage.model_copy(update={"first_layer": first, "end_layer": end})
        for stage, first, end in zip(plan.stages, (0, 1), ends, strict=True)
    )
    bad = plan.model_copy(
        update={"epoch": plan.epoch + 1, "stages": stages, "made_at_s": time.time(), "why": "a bad cut"}
    )
    bucket = await pair.connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(MODEL), bad.to_bytes())
    await _is_ready(pair, bad.epoch)
    return bad


async def _is_ready(pair: Nodes, epoch: int) -> None:
    """Waits until all stages are ready in this epoch or a later one."""
    async with Choir(pair.url) as client, asyncio.timeout(WATCHED_S):
        while True:
            pipelines = await client.pipelines()
            if any(p.model == MODEL and p.state == "ready" and p.epoch >= epoch for p in pipelines):
                return
            await asyncio.sleep(POLL_S)
