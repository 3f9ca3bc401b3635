"""The ingest loop: reads, stores and acknowledges events; and what it does when one of these fails.

broker away       read again until it is back; what was read and not acknowledged comes again
disk nearly full  leave events in the stream, say so in the lease, go on when there is room
disk full         keep the batch, say so in the lease, try again until there is room
database damaged  set it aside, begin a new one, read the stream from its beginning
stream made anew  begin a new epoch, and read on from where the numbers start again
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import duckdb

from schemas.errors import BrokerUnavailable, ErrorBody, InternalError
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.process.cancelling import ended
from services.metrics.disk_space import shortage
from services.metrics.ingest import continuity as history
from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.ingest.stream_reader import StreamReader, StreamState
from services.metrics.ingest.writer import Writer
from services.metrics.settings import MetricsSection
from services.metrics.store.database import Database, damaged, first_line, no_room

LOOK_INTERVAL_S = 2.0
RETRY_INTERVAL_S = 0.5
BATCHES_AHEAD = 2

T = TypeVar("T")

log = get_logger("metrics.ingest")


class Ingest:
    """Keeps the database level with the stream.

    `storing` is false while something keeps it from that; `shortage` says so where the disk is nearly full.
    """

    def __init__(self, mesh: ServiceContext, database: Database, settings: MetricsSection) -> None:
        self._loops = mesh.loops
        self._settings = settings
        self._database = database
        self._writer = Writer(database)
        self._reader = StreamReader(mesh.client, settings.batch_rows * BATCHES_AHEAD)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._task: asyncio.Task[None] | None = None
        self._position = Position()
        self._state = StreamState()
        self._look_at_s = 0.0
        self._suspected = False
        self._reopened = False
        self._damage = ""
        self._fault = ""
        self.storing = True
        self.shortage: str | None = None

    async def start(self) -> None:
        """Opens the database and reads from where it is. Raises ConfigurationError if it cannot be opened."""
        self._position = await self.in_writer(self._writer.open)
        self._task = self._loops.start(self._run(), "ingest")

    async def stop(self) -> None:
        """Stops after the batch that is being stored, and closes the database."""
        self._reader.stop()
        if self._task is not None:
            await ended([self._task])
        try:
            await self.in_writer(self._database.close)
        except InternalError as error:  # nothing is lost: what is stored is in the file or its log
            log.warning("ends without having closed the database", why=error.message)
        self._thread.shutdown()

    def mark_unfresh(self) -> None:
        """The connection was lost: the stream may be another one when it is back."""
        self._reader.reset()
        self._suspected = True

    def _watch_room(self) -> None:
        """Whether anything may be stored now; both its end and its return are told."""
        short = shortage(self._database.folder, self._settings.min_free_bytes)
        if short is not None:
            self._complain(short)
        elif self.shortage is not None:
            self._settle()
        self.shortage = short

    def distrust(self, why: str) -> None:
        """The file has turned out to be damaged: it is set aside before the next batch."""
        self._damage = why
        self._reader.nudge()

    async def in_writer(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs `work` in the one thread that writes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except BrokerUnavailable as error:
                log.warning("events cannot be read, trying again", why=error.message)
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def _step(self) -> None:
        """One batch, if there is one; now and then a look at the stream itself."""
        if self._damage:
            await self._replace_database()
        if self.shortage is not None:
            await asyncio.sleep(RETRY_INTERVAL_S)
        self._watch_room()
        if self.shortage is not None:
            return
        now_s = asyncio.get_running_loop().time()
        if self._suspected or now_s >= self._look_at_s:
            await self._look()
            self._suspected = False
            self._look_at_s = now_s + LOOK_INTERVAL_S
        events = await self._reader.take(
            self._position.sequence + 1,
            self._settings.batch_rows,
            LOOK_INTERVAL_S,
            self._settings.batch_wait_s,
        )
        if self._suspected:
            # The connection was lost meanwhile: the same numbers may now be those of other events.
            self._reader.reset()
        elif events:
            await self._store(events)
        elif not self._reader.waiting:
            await self._catch_up()
        await self._reader.acknowledge()

    async def _look(self) -> None:
        """Follows a stream that began anew; what was missing a day ago is no problem any more."""
        if self._writer.missing is not None:
            await self.in_writer(self._writer.look_for_missing)
        self._state = await self._reader.state()
        moved, why = await history.follow(self._position, self._state, self._reader, self._holds)
        if moved != self._position:
            await self.in_writer(self._writer.begin_epoch, moved, why)
            (log.warning if moved.epoch != self._position.epoch else log.info)(
                why, epoch=moved.epoch, sequence=moved.sequence
            )
            self._position = moved

    async def _catch_up(self) -> None:
        """Reads from the stream itself what its consumer does not tell of: it was acknowledged before."""
        while self._state.last_sequence > self._position.sequence and not self._reader.waiting:
            events = await self._reader.read(self._position.sequence + 1, self._settings.batch_rows)
            if not events:
                return
            await self._store(events)

    async def _holds(self, epoch: int, event: StoredEvent) -> bool:
        return await self.in_writer(self._writer.holds, epoch, event)

    async def _store(self, events: Sequence[StoredEvent]) -> None:
        """Returns when the events are in the database, however long that takes."""
        while events:
            try:
                self._position = await self.in_writer(self._writer.write, events, self._position)
            except MemoryError as error:  # a statement of a user has taken what there was
                self._complain(f"events cannot be stored now: {first_line(error)}")
                await asyncio.sleep(RETRY_INTERVAL_S)
            except duckdb.Error as error:
                if not await self._recover(error):
                    return
            else:
                self._settle()
                return
            self._position = self._writer.reached
            events = [event for event in events if event.sequence > self._position.sequence]

    async def _recover(self, error: duckdb.Error) -> bool:
        """Does what can be done about a failed batch; True if the same batch is to be stored again."""
        if not damaged(error) or no_room(error):
            self._complain(f"events cannot be stored now: {first_line(error)}")
            await asyncio.sleep(RETRY_INTERVAL_S)
            return not isinstance(error, duckdb.FatalException) or await self._reopen()
        self._complain(f"the event database failed: {first_line(error)}")
        if self._reopened:
            await self.in_writer(self._database.begin_anew, first_line(error))
        return await self._reopen()

    async def _replace_database(self) -> None:
        why, self._damage = self._damage, ""
        await self.in_writer(self._database.begin_anew, why)
        self._position = await self.in_writer(self._writer.position)

    async def _reopen(self) -> bool:
        """Opens the database again; False, because what it holds decides where reading goes on."""
        self._reopened = True
        try:
            await self.in_writer(self._database.close)
            self._position = await self.in_writer(self._writer.open)
        except duckdb.Error as error:
            self._complain(f"the event database cannot be opened now: {first_line(error)}")
            await asyncio.sleep(RETRY_INTERVAL_S)
            return True
        return False

    @property
    def problem(self) -> ErrorBody | None:
        """The present problem, and the past ones of the database and the stream."""
        said = (self._fault, self._writer.missing, self._set_aside())
        lines = [line for line in said if line]
        return InternalError("; ".join(lines)).body() if lines else None

    def _set_aside(self) -> str:
        found = self._database.set_aside
        return "" if found is None else f"{found}; the new one is filled from the stream"

    def _complain(self, message: str) -> None:
        if self._fault != message:
            log.error(message)
        self._fault = message
        self.storing = False

    def _settle(self) -> None:
        """The last batch was stored: nothing is wrong any more but what has happened before."""
        self._reopened = False
        if not self.storing:
            log.info("events are stored again")
            self.storing, self._fault = True, ""
