"""The inference thread of a stage: a loop and a connection of its own, so that nothing is handed over.

A frame that arrives here is evaluated here and its outcome sent from here: between the wire and llama.cpp
there is no other thread. While a step is evaluated this loop stands still, and nothing else runs on it; the
service's own loop goes on with heartbeats, leases and acknowledgements.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import ChoirError, GenerationFailed
from schemas.stage_wire import Item, Sent, pack, unpack
from services.chassis.logs import get_logger
from services.shard_stage.flow import MESSAGE_BYTES
from services.shard_stage.kernel import Outgoing
from services.shard_stage.tally import Tally

TURNS = 3
"""Turns of the loop before it stands still for a step: what was sent leaves, and what has reached the socket
is read and handed to its subscription."""
JOIN_TIMEOUT_S = 10.0

T = TypeVar("T")

log = get_logger("shard_stage.inference")


class Stage(Protocol):
    """What the thread drives. `lost`: something was dropped that is missing."""

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
        tally: Tally,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`options` are for nats.connect(). `on_failure` is called on this thread if it ends by a fault."""
        self._options = dict(options)
        self._tally = tally
        self._on_failure = on_failure
        self._stage: Stage | None = None
        self._subjects: list[str] = []
        self._subscription_subject = ""
        self._stopping = False
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="inference", daemon=True)
        self.client: Client | None = None
        self.damaged = 0

    def start(self) -> None:
        """Starts the thread; returns when its loop runs."""
        self._thread.start()
        self._started.wait()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Awaits `work()` on the thread; its outcome, for a caller on another loop."""

        async def on_thread() -> T:
            return await work()

        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(on_thread(), self._loop))

    async def call(self, work: Callable[[], T]) -> T:
        """run() of a plain function."""

        async def on_thread() -> T:
            return work()

        return await self.run(on_thread)

    def post(self, work: Callable[[], None]) -> None:
        """Has `work` done on the thread, soon; nobody waits for it."""

        def do() -> None:
            work()
            self.wake()

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(do)

    def wake(self) -> None:
        """There may be work: only to be called on the thread."""
        if self._arrived is not None:
            self._arrived.set()

    async def connect(self) -> Client:
        """On the thread: the connection that frames travel over."""
        if self.client is None:
            self.client = await nats.connect(**self._options, no_echo=True)
        return self.client

    async def drive(self, stage: Stage, pipeline: int, number: int, stages: int) -> None:
        """On the thread: from now on `stage` gets what arrives for it, and is stepped while it has work."""
        client = await self.connect()
        self._stage = stage
        self._subjects = [subjects.stage(pipeline, index) for index in range(stages)]
        subject = self._subjects[number]
        if subject != self._subscription_subject:
            self._subscription_subject = subject
            await client.subscribe(subject, cb=self._on_message)
            await client.flush()
        self.wake()

    def stop(self) -> None:
        """Ends the thread after the step at hand; blocks for no longer than JOIN_TIMEOUT_S."""
        if not self._thread.is_alive():
            return

        def end() -> None:
            self._stopping = True
            self.wake()

        if self._loop is not None:
            self._loop.call_soon_threadsafe(end)
        self._thread.join(JOIN_TIMEOUT_S)

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
        self._arrived = asyncio.Event()
        self._started.set()
        try:
            while not self._stopping:
                if self._stage is None or not self._stage.has_work:
                    self._tally.idle()
                    await self._arrived.wait()
                    self._arrived.clear()
                    self._tally.busy()
                    if self._stage is not None and self._stage.shares_steps:
                        await _turns(TURNS)
                else:
                    await _turns(TURNS)
                if self._stage is not None and self._stage.has_work:
                    await self._send(self._stage.step())
        finally:
            if self.client is not None:
                await self.client.close()

    async def _on_message(self, msg: Msg) -> None:
        assert self._stage is not None
        try:
            for item in unpack(msg.data):
                self._stage.take(item)
        except ChoirError as error:
            self.damaged += 1
            self._stage.lost = True
            log.warning("a message between stages is dropped", why=error.message, dropped=self.damaged)
        self.wake()

    async def _send(self, out: list[Outgoing]) -> None:
        if not out or self.client is None:
            return
        for stage in sorted({outgoing.stage for outgoing in out}, reverse=True):
            items = [outgoing.item for outgoing in out if outgoing.stage == stage]
            for message in pack([*items, Sent(time.time_ns())], MESSAGE_BYTES):
                await self.client.publish(self._subjects[stage], message)


async def _turns(count: int) -> None:
    """Lets the loop read and write what it can at once."""
    for _ in range(count):
        await asyncio.sleep(0)


def failure_of(error: BaseException) -> ChoirError:
    """A fault of the thread as a typed error."""
    return error if isinstance(error, ChoirError) else GenerationFailed(f"a stage failed: {error!r}")
