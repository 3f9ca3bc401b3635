"""Housekeeping beside the ingest: Parquet files are written, and what is too old goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

import duckdb

from schemas.errors import NotReady
from services.chassis.logs import get_logger
from services.chassis.process.cancelling import ended
from services.chassis.process.supervise import Loops, log_failure
from services.metrics.ingest.loop import Ingest
from services.metrics.settings import MetricsSection
from services.metrics.store.database import Database, damaged, first_line
from services.metrics.store.parquet_export import ParquetExport
from services.metrics.store.retention import drop_files, drop_rows
from services.metrics.store.tables import definitions

REST = 10
"""Sleep ten times the duration of the last export, so exporting takes at most a tenth of the time."""
RETENTION_INTERVAL_S = 60.0

FAILURES = (duckdb.Error, OSError, MemoryError, NotReady)
"""Errors of a step; NotReady while the database is opened again."""

log = get_logger("metrics.housekeeping")


class Housekeeping:
    """Exports every `export_interval_s`; drops what is too old or too much every minute."""

    def __init__(self, database: Database, ingest: Ingest, settings: MetricsSection, loops: Loops) -> None:
        self._loops = loops
        self._database = database
        self._ingest = ingest
        self._settings = settings
        self._export = ParquetExport(database)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="housekeeping")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins, in the background."""
        check = asyncio.create_task(self._check_once(), name="check")
        check.add_done_callback(log_failure)
        self._tasks.append(check)
        if self._settings.export_interval_s:
            self._tasks.append(self._loops.start(self._keep_exporting(), "parquet"))
        self._tasks.append(self._loops.start(self._keep_dropping(), "retention"))

    async def _check_once(self) -> None:
        """The file is read once as a whole: damage shows now, not when somebody asks for just that block."""
        loop = asyncio.get_running_loop()
        for table in definitions():
            try:
                await loop.run_in_executor(self._thread, self._database.verify, table)
            except FAILURES as error:
                log.warning("housekeeping", step="check", table=table, failed=first_line(error))
                if damaged(error):
                    self._ingest.distrust(first_line(error))
                    return

    async def stop(self) -> None:
        """Ends; what is being written is finished first, and the last rows are exported."""
        await ended(self._tasks)
        if self._settings.export_interval_s and self._ingest.shortage is None:
            await self._once("export", self._in_thread())
        self._thread.shutdown()

    async def _keep_exporting(self) -> None:
        while True:
            started_s = time.monotonic()
            if self._ingest.shortage is None:
                await self._once("export", self._in_thread())
            took_s = time.monotonic() - started_s
            await asyncio.sleep(max(self._settings.export_interval_s, REST * took_s))

    async def _keep_dropping(self) -> None:
        keep = (self._settings.keep_days, self._settings.keep_bytes)
        loop = asyncio.get_running_loop()
        while True:
            await self._once("retention", self._ingest.in_writer(drop_rows, self._database, *keep))
            files = loop.run_in_executor(self._thread, drop_files, self._database.parquet, *keep)
            await self._once("retention", files)
            await asyncio.sleep(RETENTION_INTERVAL_S)

    def _in_thread(self) -> asyncio.Future[int]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._export.run)

    async def _once(self, what: str, work: Awaitable[int]) -> None:
        """A step that fails is tried again next time: the ingest says in the lease what is wrong."""
        try:
            await work
        except FAILURES as error:
            log.warning("housekeeping", step=what, failed=first_line(error))
