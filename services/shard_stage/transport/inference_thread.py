"""The inference thread of a stage: a loop and a connection of its own, so that nothing is handed over.

A frame that arrives here is evaluated here and its outcome sent from here: between the wire and llama.cpp
there is no other thread. While a step is evaluated this loop stands still, and nothing else runs on it; the
service's own loop goes on with heartbeats, leases and acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import uvloop

from schemas import subjects
from schemas.errors import ChoirError, GenerationFailed
from schemas.pipelines.stage_wire import Item, unpack
from services.chassis.logs import get_logger
from services.shard_stage.pipeline.step_executor import Outgoing
from services.shard_stage.pipeline.step_stats import StepStats
from services.shard_stage.transport.frame_connection import FrameLink, LinkOptions
from services.shard_stage.transport.messages import messages

JOIN_TIMEOUT_S = 4.0

T = TypeVar("T")

log = get_logger("shard_stage.inference")


class Stage(Protocol):
    """The stage that the thread drives. `lost`: a message was dropped that is missing."""

    lost: bool

    @property
    def shares_steps(self) -> bool:
        """Whether more may be on its way that belongs into the same step."""

    @property
    def has_work(self) -> bool:
        """Whether step() has something to do."""

    def take(self, item: Item) -> None:
        """Takes what has arrived."""

    def step(self) -> list[Outgoing]:
        """Does some of the work; what is to be sent."""


class InferenceThread:
    """Runs one stage. `call` and `run` bring work onto the thread, between two steps."""

    def __init__(
        self,
        options: Mapping[str, Any],
        stats: StepStats,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`options` are those of nats.connect(). `on_failure` is called on this thread if it ends by a
        fault."""
        self._link = FrameLink(LinkOptions.of(options), self._on_message, self._end)
        self._stats = stats
        self._on_failure = on_failure
        self._stage: Stage | None = None
        self._subjects: list[str] = []
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._turn_is_due = False
        self._resting = True
        self._thread = threading.Thread(target=self._main, name="inference", daemon=True)
        self.damaged = 0

    def start(self) -> None:
        """Starts the thread; returns when its loop runs."""
        self._thread.start()
        self._started.wait()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def rests(self) -> bool:
        """Whether the stage has nothing to do, as far as is known here."""
        return self._resting

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Awaits `work()` on the thread; its outcome, for a caller on another loop."""

        async def on_thread() -> T:
            return await work()

        assert self._loop is not None
        coroutine = on_thread()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the thread has ended, and its loop is closed
            coroutine.close()
            raise
        return await asyncio.wrap_future(future)

    async def call(self, work: Callable[[], T]) -> T:
        """run() of a plain function."""

        async def on_thread() -> T:
            return work()

        return await self.run(on_thread)

    def run_soon(self, work: Callable[[], None]) -> None:
        """Has `work` done on the thread, soon; nobody waits for it."""

        def do() -> None:
            work()
            self.wake()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has ended, and its loop is closed
                self._loop.call_soon_threadsafe(do)

    def wake(self) -> None:
        """There may be work: only to be called on the thread."""
        if not self._turn_is_due and self._loop is not None:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    @property
    def carried(self) -> int:
        """The most bytes of a message, as the broker has said when connect() returned."""
        return self._link.carried

    async def connect(self) -> None:
        """On the thread: makes the connection that frames travel over."""
        await self._link.open()

    async def drive(self, stage: Stage, pipeline: int, number: int, stages: int) -> None:
        """On the thread: from now on `stage` gets what arrives for it, and is stepped while it has work."""
        await self.connect()
        self._stage = stage
        self._subjects = [subjects.stage(pipeline, index) for index in range(stages)]
        await self._link.listen(self._subjects[number])
        self.wake()

    def stop(self) -> bool:
        """Ends the thread after the step at hand; whether it has ended. Blocks for no longer than
        JOIN_TIMEOUT_S."""
        if self.alive and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself just now
                self._loop.call_soon_threadsafe(self._end)
            self._thread.join(JOIN_TIMEOUT_S)
        return not self.alive

    def join(self) -> None:
        """Blocks until the thread has ended."""
        self._thread.join()

    # --- on the thread ------------------------------------------------------------------

    def _main(self) -> None:
        try:
            uvloop.run(self._work())
        except BaseException as error:  # noqa: BLE001  (whoever waits for this stage has to hear of it)
            self._on_failure(error)
        finally:
            self._started.set()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._started.set()
        try:
            await self._ended
        finally:
            await self._link.close()

    def _end(self, error: Exception | None = None) -> None:
        if self._ended is not None and not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)

    def _turn(self) -> None:
        """A step, if there is work for one. Between two turns the loop sends and reads what it can."""
        self._turn_is_due = False
        stage = self._stage
        if stage is None or self._ended is None or self._ended.done():
            return
        try:
            if self._begins(stage):
                self.wake()
                return
            if stage.has_work:
                self._send(stage.step())
        except Exception as error:  # noqa: BLE001  (it ends the thread, which tells of it)
            self._end(error)
            return
        if stage.has_work:
            self.wake()
        else:
            self._resting = True
            self._stats.idle()

    def _begins(self, stage: Stage) -> bool:
        """Whether work has come after a rest and more of it may be there to be read."""
        rested, self._resting = self._resting, False
        if rested:
            self._stats.busy()
        return rested and stage.has_work and stage.shares_steps

    def _on_message(self, payload: bytes) -> None:
        stage = self._stage
        if stage is None:
            return
        try:
            for item in unpack(payload):
                stage.take(item)
        except ChoirError as error:
            self.damaged += 1
            stage.lost = True
            log.warning("a message between stages is dropped", why=error.message, dropped=self.damaged)
        except Exception as error:  # noqa: BLE001  (it ends the thread, which tells of it)
            self._end(error)
        self.wake()

    def _send(self, out: list[Outgoing]) -> None:
        for stage, message in messages(out, self._link.carried):
            self._link.publish(self._subjects[stage], message)


def failure_of(error: BaseException) -> ChoirError:
    """A fault of the thread as a typed error."""
    return error if isinstance(error, ChoirError) else GenerationFailed(f"a stage failed: {error!r}")
