"""A frame of 16 KiB from one process to another: between two stages, and between two bare NATS clients."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import struct
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.pipelines.activations import Dtype, Frame
from schemas.pipelines.stage_wire import Item, Sent
from services.shard_stage.pipeline.step_executor import Outgoing
from services.shard_stage.pipeline.step_stats import StepStats
from services.shard_stage.transport.inference_thread import InferenceThread

FRAME_BYTES = 16 * 1024
WIDTH = 1024
HOPS = 400
WARM_HOPS = 40
ROUNDS = 5
PAUSE_S = 0.002
PATIENCE_S = 30.0
PIPELINE = 1
TIME = struct.Struct("<Q")
# Not captured by a stream, which would answer in the receiver's place.
READY = subjects.stage_signal(PIPELINE)


def hops_us(url: str, cores: tuple[int, int]) -> dict[str, float]:
    """The median microseconds of a hop, `bare` and between `stage`s, taken in turns."""
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, list[float]] = {"bare": [], "stage": []}
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        for _ in range(ROUNDS):
            for name, receive, send in (("bare", _receive_bare, _send_bare), ("stage", _receive, _send)):
                receiving = pool.submit(_on_core, cores[1], receive, url)
                pool.submit(_on_core, cores[0], send, url).result()
                found[name] += receiving.result()
    return {name: statistics.median(times) for name, times in found.items()}


def _on_core(core: int, work: Callable[[str], Any], url: str) -> Any:
    os.sched_setaffinity(0, {core})
    return uvloop.run(work(url))


async def _receive_bare(url: str) -> list[float]:
    client = await nats.connect(url)
    timings_us: list[float] = []
    done = asyncio.Event()

    async def on_message(msg: Msg) -> None:
        timings_us.append((time.time_ns() - TIME.unpack_from(msg.data)[0]) / 1000)
        if len(timings_us) == HOPS:
            done.set()

    await client.subscribe(subjects.stage(PIPELINE, 1), cb=on_message)
    await client.subscribe(READY, cb=_answer(client))
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    await client.close()
    return timings_us[WARM_HOPS:]


async def _send_bare(url: str) -> None:
    client = await nats.connect(url)
    await _until_there(client)
    padding = b"x" * (FRAME_BYTES - TIME.size)
    for _ in range(HOPS):
        await client.publish(subjects.stage(PIPELINE, 1), TIME.pack(time.time_ns()) + padding)
        await asyncio.sleep(PAUSE_S)
    await client.close()


class Arrivals:
    """A stage that notes when frames arrive."""

    has_work = False
    shares_steps = False
    lost = False

    def __init__(self, done: Callable[[], None]) -> None:
        self.timings_us: list[float] = []
        self._done = done

    def take(self, item: Item) -> None:
        """Frames carry the time of their sending as their sequence."""
        if isinstance(item, Frame):
            self.timings_us.append((time.time_ns() - item.sequence) / 1000)
            if len(self.timings_us) == HOPS:
                self._done()

    def step(self) -> list[Outgoing]:
        """Never called."""
        return []


class Departures:
    """A stage that sends a frame whenever it is told to."""

    shares_steps = False
    lost = False

    def __init__(self) -> None:
        self.has_work = False
        self._payload = bytes(FRAME_BYTES)

    def take(self, item: Item) -> None:
        """Nothing arrives."""

    def step(self) -> list[Outgoing]:
        """A frame."""
        self.has_work = False
        frame = Frame(
            1, PIPELINE, 1, time.time_ns(), 0, FRAME_BYTES // WIDTH // 4, WIDTH, Dtype.F32, self._payload
        )
        return [Outgoing(1, frame), Outgoing(1, Sent(time.time_ns()))]


async def _receive(url: str) -> list[float]:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    stage = Arrivals(lambda: _set_from_thread(loop, done))
    thread = InferenceThread({"servers": [url]}, StepStats(), _raise)
    thread.start()
    await thread.run(lambda: thread.drive(stage, PIPELINE, 1, 3))
    client = await nats.connect(url)
    await client.subscribe(READY, cb=_answer(client))
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    await client.close()
    thread.stop()
    return stage.timings_us[WARM_HOPS:]


async def _send(url: str) -> None:
    client = await nats.connect(url)
    await _until_there(client)
    stage = Departures()
    thread = InferenceThread({"servers": [url]}, StepStats(), _raise)
    thread.start()
    await thread.run(lambda: thread.drive(stage, PIPELINE, 0, 3))

    def send() -> None:
        stage.has_work = True

    for _ in range(HOPS):
        thread.run_soon(send)
        await asyncio.sleep(PAUSE_S)
    await client.close()
    thread.stop()


def _answer(client: Client) -> Callable[[Msg], Any]:
    async def answer(msg: Msg) -> None:
        await client.publish(msg.reply, b"here")

    return answer


async def _until_there(client: Client) -> None:
    """Returns when the receiver listens."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.request(READY, b"?", timeout=0.2)
                return
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                await asyncio.sleep(0.05)


def _raise(error: BaseException) -> None:
    raise error


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
