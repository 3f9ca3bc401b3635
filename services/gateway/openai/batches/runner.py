"""Who works on which batch: each gateway looks for batches that nobody works on.

A batch in work has a record that changes every few seconds. One whose record has not changed for a while, by
this gateway's own clock, belongs to a gateway that is gone, and is taken over.
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp

from schemas import subjects
from schemas.errors import ChoirError
from schemas.requests.files import ENDED, BatchRecord
from services.chassis.identity import new_id
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, WrongRevision, messages
from services.chassis.process.cancelling import ended
from services.gateway.http.context import GatewayContext
from services.gateway.openai.batches.work import BatchWork, Lost, tell
from services.gateway.openai.files.store import FileStore

LOOK_S = 2.0
SILENCE_S = 9.0
"""How long a record may stay as it is before its gateway is taken for gone."""
MOST_AT_ONCE = 4

log = get_logger("gateway.batches")


class BatchRunner:
    """The batches that one gateway works on."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._files = FileStore(context.client, context.now)
        self._records = Bucket(context.client, subjects.BATCHES_BUCKET, messages(BatchRecord))
        self._name = f"gateway-{new_id()[-12:].lower()}"
        self._running: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()
        self._seen: dict[str, tuple[int, float]] = {}

    async def run(self, app: ASGIApp) -> None:
        """Looks for work until it is cancelled; what is asked by then goes on in the mesh."""
        try:
            while True:
                self._context.batch_waits.clear()
                try:
                    await self._look(app)
                except ChoirError as error:
                    log.info("batches cannot be read", code=error.code)
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._context.batch_waits.wait()
                except TimeoutError:
                    continue
        finally:
            await ended(tuple(self._running.values()))

    async def _look(self, app: ASGIApp) -> None:
        keys = set(await self._records.keys("*"))
        self._over &= keys
        for key in sorted(keys - self._over - self._running.keys()):
            entry = await self._records.get(key)
            if entry.value is None or entry.value.status in ENDED:
                self._over.add(key)
                self._seen.pop(key, None)
            elif len(self._running) < MOST_AT_ONCE and self._is_free(key, entry.value, entry.revision):
                await self._take(app, key, entry.value, entry.revision)

    def _is_free(self, key: str, record: BatchRecord, revision: int) -> bool:
        if record.runner is None:
            return True
        seen = self._seen.get(key)
        if seen is None or seen[0] != revision:
            self._seen[key] = (revision, time.monotonic())
            return False
        return time.monotonic() - seen[1] > SILENCE_S

    async def _take(self, app: ASGIApp, key: str, record: BatchRecord, revision: int) -> None:
        mine = record.model_copy(update={"runner": self._name, "beat": record.beat + 1})
        try:
            await self._records.update(key, mine, revision)
        except WrongRevision:
            return
        log.info("a batch is worked on", batch=record.id, after=record.runner)
        work = BatchWork(self._context, app, self._files, self._records, mine)
        task = asyncio.create_task(self._work(work, mine), name=f"batch {record.id}")
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))

    async def _work(self, work: BatchWork, record: BatchRecord) -> None:
        """Works on a batch; one that fails is left until its record has been silent for a while."""
        try:
            await work.run()
            self._context.batch_waits.set()
        except asyncio.CancelledError:
            await work.release()
            raise
        except Lost:
            log.info("another gateway works on it", batch=record.id)
        except ChoirError as error:
            tell(error, record)
        except Exception:
            log.exception("a batch failed", batch=record.id)
