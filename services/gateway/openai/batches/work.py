"""The work on one batch: reads its lines, asks what is missing, and keeps what came of each.

What came of a line is a piece of the output or of the error file, under the line's number. So whoever goes on
with a batch sees in these files what is done; and as the id of a request is made of the batch and the line's
`custom_id`, one that was asked already is not asked again, but its result is fetched.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import ASGIApp

from schemas import subjects
from schemas.errors import ChoirError, DeadlineExceeded, PayloadTooLarge, Unauthenticated
from schemas.requests.files import BatchFault, BatchRecord, BatchStatus
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket
from services.chassis.process.cancelling import ended
from services.gateway.access.caller import Caller, current_caller
from services.gateway.http.connection.protocol import Connection
from services.gateway.http.context import GatewayContext
from services.gateway.openai.batches.inside import Reply, post
from services.gateway.openai.batches.line import LINE_ROOM, Line, answered, read_line, unanswered
from services.gateway.openai.files.store import FileStore

BEAT_S = 2.0
MOST_LINES = 10_000
MOST_FAULTS = 100
MOST_AT_ONCE = 64
PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
NOT_TAKEN = frozenset((429, 499, 503))
"""What is said of work that was not taken, and of a gateway that stops: it is tried again."""
OK = 200

log = get_logger("gateway.batches")


class Lost(Exception):
    """Raised when another gateway works on the batch."""


class BatchWork:
    """One batch in the hands of a gateway, whose name is `runner`."""

    def __init__(
        self,
        context: GatewayContext,
        app: ASGIApp,
        files: FileStore,
        records: Bucket[BatchRecord],
        record: BatchRecord,
    ) -> None:
        self._context = context
        self._app = app
        self._files = files
        self._records = records
        self._record = record
        self._runner = record.runner
        self._now = context.now
        base = record.id.removeprefix("batch_")
        self._output, self._errors = f"file-{base}-output", f"file-{base}-errors"
        self._total = record.total
        self._completed = self._failed = 0
        self._open: set[Connection] = set()
        self._stopped = False

    async def run(self) -> None:
        """Works until the batch has ended. Raises Lost, and ChoirError if the mesh does not answer."""
        current_caller.set(self._caller())
        work = asyncio.create_task(self._ask_all(), name=f"lines of {self._record.id}")
        beat = asyncio.create_task(self._beat(), name=f"beat of {self._record.id}")
        try:
            await asyncio.wait((work, beat), return_when=asyncio.FIRST_COMPLETED)
            if beat.done():
                status = beat.result()
                self._stopped = True
                for connection in tuple(self._open):
                    connection.go()
                await ended((work,))
            else:
                status = work.result()
            await ended((beat,))
            await self._finish(status)
        finally:
            await ended((work, beat))

    def _caller(self) -> Caller:
        """In whose name the lines are asked: a key that is good no longer has its lines refused."""
        record = self._record
        if record.key_id is None:
            return Caller(record.tenant, work="batch")
        key = self._context.keyring.with_id(record.key_id)
        if key is None:
            return Caller(
                record.tenant, refused=Unauthenticated("the key of this batch is not valid any more")
            )
        return Caller(record.tenant, key, self._context.keyring.use_of(key), work="batch")

    async def release(self) -> None:
        """Leaves the batch to whoever comes: this gateway stops."""
        try:
            await self._update(runner=None)
        except (Lost, ChoirError):
            log.info("a batch was not left in order", batch=self._record.id)

    async def _beat(self) -> BatchStatus:
        """Says again and again that the batch is worked on, and how far; ends when it is to end."""
        while True:
            record = await self._update(total=self._total, completed=self._completed, failed=self._failed)
            if record.status == "cancelling":
                return "cancelled"
            if self._now() > record.expires_at_s:
                return "expired"
            await asyncio.sleep(BEAT_S)

    async def _update(self, **fields: Any) -> BatchRecord:
        """Changes the record, if it is still this gateway's."""

        def told(now: BatchRecord | None) -> BatchRecord:
            if now is None or now.runner != self._runner:
                raise Lost
            beat = max(now.beat, self._record.beat) + 1
            if now.status == "cancelling" and fields.get("status") == "in_progress":
                return now.model_copy(update={"beat": beat})
            return now.model_copy(update={**fields, "beat": beat})

        self._record = await self._records.change(subjects.file_key(self._record.id), told)
        return self._record

    async def _ask_all(self) -> BatchStatus:
        if self._record.status == "cancelling":
            return "cancelled"
        faults = await self._faults()
        if faults:
            await self._update(faults=faults)
            return "failed"
        if self._record.status == "validating":
            now_s = self._now()
            await self._update(status="in_progress", in_progress_at_s=now_s, total=self._total)
        done_well = set(await self._files.pieces(self._output))
        done_ill = set(await self._files.pieces(self._errors))
        self._completed, self._failed = len(done_well), len(done_ill)
        try:
            await self._ask_but(done_well | done_ill)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        return "completed"

    async def _ask_but(self, done: set[int]) -> None:
        """Asks all lines but those that are done; the first error ends it."""
        room = asyncio.Semaphore(await self._room())
        async with asyncio.TaskGroup() as group:
            async for number, line in self._lines():
                if isinstance(line, Line) and number not in done:
                    await room.acquire()
                    group.create_task(self._one(number, line)).add_done_callback(lambda _: room.release())

    async def _room(self) -> int:
        """So many lines at once keep all slots busy."""
        slots = sum(model.slots for model in await self._context.mesh.models())
        return max(1, min(MOST_AT_ONCE, 2 * slots))

    async def _lines(self) -> AsyncIterator[tuple[int, Line | BatchFault]]:
        number, longest = 0, self._context.settings.max_body_bytes + LINE_ROOM
        async for data in self._files.lines(self._record.input_file_id, longest):
            number += 1
            yield number, read_line(data, number, self._record.endpoint, longest)

    async def _faults(self) -> tuple[BatchFault, ...]:
        """What is wrong with the input, the first of it; counts the lines."""
        faults: list[BatchFault] = []
        known: set[str] = set()
        self._total = 0
        async for number, line in self._lines():
            self._total = number
            if isinstance(line, BatchFault):
                faults.append(line)
            elif line.custom_id in known:
                what = f"custom_id: {line.custom_id[:80]} stands in two lines"
                faults.append(BatchFault(code="duplicate_custom_id", message=what, line=number))
            else:
                known.add(line.custom_id)
            if number > MOST_LINES:
                return (BatchFault(code="too_many_lines", message=f"{MOST_LINES} lines at most"),)
            if len(faults) >= MOST_FAULTS:
                break
        if not self._total:
            return (BatchFault(code="empty_file", message="the file has no lines"),)
        return tuple(faults)

    async def _one(self, number: int, line: Line) -> None:
        """Asks a line until there is an answer, and keeps that."""
        record, began_s, pause_s = self._record, time.monotonic(), PAUSE_S
        while True:
            reply = await self._reply(line)
            if self._stopped:
                return
            if reply.status not in NOT_TAKEN or self._now() > record.expires_at_s:
                break
            log.info("asked again", batch=record.id, line=number, status=reply.status)
            after = reply.headers.get("retry-after", "")
            await asyncio.sleep(min(LONGEST_PAUSE_S, int(after) if after.isdigit() else pause_s))
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
        request_id = reply.headers.get("choir-request-id", "")
        data = answered(record.id, line.custom_id, request_id, reply.status, reply.body)
        file = self._output if reply.status == OK else self._errors
        try:
            await self._files.put_piece(file, number, data)
        except PayloadTooLarge as error:
            file = self._errors
            await self._files.put_piece(file, number, unanswered(record.id, line.custom_id, error))
        if file == self._output:
            self._completed += 1
        else:
            self._failed += 1
        log.debug(
            "a line is done", batch=record.id, line=number, seconds=round(time.monotonic() - began_s, 3)
        )

    async def _reply(self, line: Line) -> Reply:
        record, connection = self._record, Connection()
        body = {**line.body, "stream": False}
        self._open.add(connection)
        try:
            key = f"{record.id}/{line.custom_id}"
            return await post(self._app, record.endpoint, body, key, connection, self._caller())
        finally:
            self._open.discard(connection)

    async def _finish(self, status: BatchStatus) -> None:
        """Makes files of what there is, and tells that the batch has ended."""
        if status == "expired":
            await self._write_unasked()
        now_s = math.floor(self._now())
        output = await self._close(self._output, "output")
        errors = await self._close(self._errors, "errors")
        await self._update(
            status=status,
            total=self._total,
            completed=output,
            failed=errors,
            output_file_id=self._output if output else None,
            error_file_id=self._errors if errors else None,
            finalizing_at_s=now_s,
            runner=None,
            **{f"{status}_at_s": now_s},
        )

    async def _write_unasked(self) -> None:
        """The lines for which there was no time have an error each."""
        done = {*await self._files.pieces(self._output), *await self._files.pieces(self._errors)}
        error = DeadlineExceeded("This request could not be executed before the completion window expired.")
        async for number, line in self._lines():
            if isinstance(line, Line) and number not in done:
                told = unanswered(self._record.id, line.custom_id, error)
                await self._files.put_piece(self._errors, number, told)

    async def _close(self, file: str, kind: str) -> int:
        """Tells of a file whose lines are there, and how many these are."""
        lines = size = 0
        async for line in self._files.content(file):
            lines, size = lines + 1, size + len(line)
        if lines:
            name = f"{self._record.id}_{kind}.jsonl"
            await self._files.put_record(file, name, "batch_output", size)
        return lines


def tell(error: ChoirError, record: BatchRecord) -> None:
    """A batch is left for a while."""
    log.warning("a batch waits", batch=record.id, code=error.code, why=error.message)
