"""The endpoint `choir.sql`: several statements at once, each in a thread and each within its time.

DuckDB looks between two blocks of rows whether it was told to stop, so one function of one row may hold a
thread for hours. Only the end of the process ends that. A tenant's statement has a process of its own, which
is killed. A statement of somebody who sees all rows reads the file, which may have one process: that is this
one, and everything that it has stored it finds again. When that was is noted, and the lease tells of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from nats.aio.client import Client

from schemas.errors import DeadlineExceeded, Overloaded
from schemas.requests.queries import Rows, Sql
from services.chassis.logs import get_logger
from services.chassis.nats.connection import ENVELOPE_BYTES
from services.chassis.nats.endpoints import Caller
from services.chassis.nats.sharing import Places, Turns
from services.metrics.low_priority import lower_priority
from services.metrics.query.sandbox import FIELD
from services.metrics.query.statement_run import OperatorRun, StatementRun
from services.metrics.query.stuck import StuckStatements
from services.metrics.query.tenant_run import TenantRun
from services.metrics.settings import MetricsSection
from services.metrics.store.database import Database

WAITING_PER_THREAD = 4
INTERRUPT_INTERVAL_S = 0.05
GRACE_S = 2.0
"""How long a statement that was cut off may take to notice it, before its client is told all the same."""
STUCK_S = 3.0
"""After its client was told, so long may a statement still hold its thread; then the process ends."""
EXIT_STUCK = 1
REPLY_FRAME_BYTES = 1_024

log = get_logger("metrics.query")


def end_process() -> None:
    """Ends the process at once: nothing that is orderly ends a thread that does not listen."""
    os._exit(EXIT_STUCK)


def _no_turn(limit_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"{FIELD}: others took the whole of its {limit_s:g} s", field=FIELD)


class Questions:
    """Answers statements, `queries_at_once` of a tenant's side by side."""

    def __init__(
        self,
        client: Client,
        database: Database,
        settings: MetricsSection,
        sees_all: Callable[[str], bool] = lambda _tenant: True,
        end: Callable[[], None] = end_process,
    ) -> None:
        """`sees_all` says of a tenant whether it sees the rows of others; `end` is what ends the process when
        a statement cannot be ended."""
        self._stuck = StuckStatements(database.folder)
        self._sees_all = sees_all
        self._client = client
        self._database = database
        self._settings = settings
        self._end = end
        count = settings.threads_of_statements
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sql", initializer=lower_priority)
        # Whoever starts the processes of tenants does not wait; these lower their priority by themselves.
        self._starting = ThreadPoolExecutor(count, thread_name_prefix="tenants")
        self._places = Places(settings.queries_at_once * (1 + WAITING_PER_THREAD))
        self._turns = Turns(settings.queries_at_once)
        self._running: dict[asyncio.Future[Rows], StatementRun] = {}

    @property
    def busy(self) -> int:
        """How many statements run or wait."""
        return self._places.taken

    @property
    def problem(self) -> str | None:
        """What became of this service by a statement, a while ago."""
        return self._stuck.problem

    async def handle(self, sql: Sql, caller: Caller) -> None:
        """Answers one statement with its rows, or with the error that it raises."""
        if not self._places.take(caller.tenant):
            raise Overloaded("too many statements wait here, try again later", retry_after_s=1.0)
        try:
            rows = await self._in_turn(sql, caller)
        finally:
            self._places.leave(caller.tenant)
        await caller.send(rows, kind=rows.kind)

    async def _in_turn(self, sql: Sql, caller: Caller) -> Rows:
        """One thread more than a tenant may have: whoever fills all of its own keeps nobody else from it."""
        limit_s, loop = min(sql.timeout_s, self._settings.query_timeout_s), asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(limit_s):
                    await turn.enter_async_context(self._turns.of(caller.tenant))
            except TimeoutError as error:
                raise _no_turn(limit_s) from error
            return await self._answer(sql, caller, limit_s, end_s - loop.time())

    async def _answer(self, sql: Sql, caller: Caller, limit_s: float, left_s: float) -> Rows:
        tenant, key = caller.tenant, caller.shown
        room = self._client.max_payload - ENVELOPE_BYTES - REPLY_FRAME_BYTES
        sql = sql.model_copy(update={"max_rows": min(sql.max_rows, self._settings.query_rows)})
        run: StatementRun
        threads = self._threads
        if self._sees_all(tenant) and (key is None or "observe" in key.scopes):
            run = OperatorRun(self._database, sql, room)
        else:
            spill_mb = self._settings.spill_mb_of_a_tenants
            run = TenantRun(self._database, sql, room, tenant, left_s, spill_mb)
            threads = self._starting
        work = asyncio.get_running_loop().run_in_executor(threads, run.rows)
        self._running[work] = run
        work.add_done_callback(self._running.pop)
        done, _ = await asyncio.wait((work,), timeout=left_s)
        if not done and not run.begun:
            run.interrupt()
            work.cancel()
            raise _no_turn(limit_s)
        if not done:
            done = await self._cut_off(run, work)
        if not done:
            asyncio.get_running_loop().call_later(STUCK_S, self._end_for, tenant, work)
            raise DeadlineExceeded(f"{FIELD}: it was cut off after {limit_s:g} s", field=FIELD)
        return work.result()

    async def _cut_off(self, run: StatementRun, work: asyncio.Future[Rows]) -> set[asyncio.Future[Rows]]:
        """Interrupts until the statement has noticed: between two of its steps an interruption is lost."""
        end_s = asyncio.get_running_loop().time() + GRACE_S
        done: set[asyncio.Future[Rows]] = set()
        while not done and asyncio.get_running_loop().time() < end_s:
            run.interrupt()
            done, _ = await asyncio.wait((work,), timeout=INTERRUPT_INTERVAL_S)
        return done

    def _end_for(self, tenant: str, work: asyncio.Future[Rows]) -> None:
        if not work.done():
            self._stuck.note(tenant)
            self._end_if_stuck(work)

    def _end_if_stuck(self, *works: asyncio.Future[Rows]) -> None:
        if not all(work.done() for work in works):
            log.critical("a statement does not end though it was cut off; this process ends")
            self._end()

    async def stop(self) -> None:
        """Cuts off what runs, and takes nothing more."""
        begun = tuple(work for work, run in self._running.items() if run.begun)
        for run in self._running.values():
            run.interrupt()
        for threads in (self._threads, self._starting):
            threads.shutdown(wait=False, cancel_futures=True)
        if begun:
            await asyncio.wait(begun, timeout=GRACE_S)
            self._end_if_stuck(*begun)
