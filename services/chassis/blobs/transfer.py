"""Fetches chunks of a file from all hosts that hold it, several at once, and checks each before it counts.

A holder is asked for one frame after another by a few workers, each of which has one segment on its way and
one that is checked at most. So what is held is bounded at both ends, and nobody sends what nobody has asked
for. A holder that fails is left alone for a while, and one that sends other bytes than the catalogue says is
not asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import nats.errors
from nats.aio.client import Client

from schemas import subjects
from schemas.errors import ChoirError, PullFailed, error_from_body
from schemas.nodes.model_store import ReadRange
from schemas.replies import ErrorReply
from services.chassis.blobs.chunks import ChunkTable
from services.chassis.logs import get_logger

FRAME_BYTES = 512 * 1024
"""What is asked for at a time, if the broker carries it."""
ENVELOPE_BYTES = 4_096
SEGMENT_BYTES = FRAME_BYTES
"""What is checked and written at a time, or one chunk where that is larger."""
WORKERS = 4
MEMORY_BYTES = 32 * 1024 * 1024
"""What segments that are on their way may take together."""
REPLY_PATIENCE_S = 10.0
LOOK_S = 1.0
PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
PATIENCE_S = 120.0

Holders = Callable[[], Awaitable[Sequence[str]]]
Sink = Callable[[range, bytes], None]
"""Takes the content of neighbouring chunks, in a thread of its own; each is as the catalogue says."""

log = get_logger("chassis.blobs")


async def read_range(client: Client, instance: str, sha256: str, offset: int, length: int) -> bytes:
    """Bytes of a file from the store of an instance, at most what one message carries.

    Raises its typed error; PullFailed if it does not answer, or with other than was asked for.
    """
    request = ReadRange(sha256=sha256, offset=offset, length=length).to_bytes()
    try:
        reply = await client.request(subjects.blob(instance), request, timeout=REPLY_PATIENCE_S)
    except (nats.errors.Error, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise PullFailed(f"the store {instance} does not answer: {why}", field="store") from error
    if reply.headers and reply.headers.get(subjects.KIND_HEADER):
        raise error_from_body(ErrorReply.read(reply.data).error)
    if len(reply.data) != length:
        raise PullFailed(
            f"the store {instance} sent {len(reply.data)} bytes of {sha256} instead of {length}",
            field="store",
        )
    return reply.data


def frame_bytes(client: Client) -> int:
    """How much is asked for at a time: less than what the broker carries."""
    return max(1, min(FRAME_BYTES, client.max_payload - ENVELOPE_BYTES))


class Transfer:
    """The chunks of one file that are to come, and those who send them.

    `holders` tells who has the file now; `sink` takes what has come. `fetched_bytes` counts what came over
    the wire. `banned` are those that have sent other bytes, with what: transfers of one file may share it.
    """

    def __init__(
        self,
        client: Client,
        table: ChunkTable,
        holders: Holders,
        sink: Sink,
        patience_s: float = PATIENCE_S,
        banned: dict[str, str] | None = None,
    ) -> None:
        self._client = client
        self._table = table
        self._holders = holders
        self._sink = sink
        self._patience_s = patience_s
        self._wanted: deque[range] = deque()
        self._banned = {} if banned is None else banned
        self._rests: dict[str, tuple[float, float]] = {}
        self._last_word = "no host holds it"
        self.fetched_bytes = 0
        self._per_segment = max(1, SEGMENT_BYTES // table.chunk_bytes)
        largest = self._per_segment * table.chunk_bytes
        self._workers = max(1, min(WORKERS, MEMORY_BYTES // (2 * largest)))

    async def fetch(self, chunks: Iterable[int]) -> None:
        """Returns when all of these have gone to the sink.

        Raises what the sink raises, and PullFailed when nothing has come for `patience_s`.
        """
        self._wanted.extend(self._segments(chunks))
        moved_s, fetched = time.monotonic(), self.fetched_bytes
        workers: dict[asyncio.Task[None], str] = {}
        try:
            while self._wanted or workers:
                if self._wanted:
                    await self._start_workers(workers)
                await self._wait(workers)
                now_s = time.monotonic()
                if fetched != self.fetched_bytes:
                    moved_s, fetched = now_s, self.fetched_bytes
                elif now_s - moved_s > self._patience_s:
                    raise self._nobody()
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _segments(self, chunks: Iterable[int]) -> Iterable[range]:
        """Neighbours go together, as many as make a segment."""
        run: range | None = None
        for chunk in sorted(set(chunks)):
            if run is not None and chunk == run.stop and len(run) < self._per_segment:
                run = range(run.start, chunk + 1)
                continue
            if run is not None:
                yield run
            run = range(chunk, chunk + 1)
        if run is not None:
            yield run

    async def _start_workers(self, workers: dict[asyncio.Task[None], str]) -> None:
        busy = set(workers.values())
        try:
            holders = await self._holders()
        except ChoirError as error:
            self._last_word = error.message
            return
        now_s = time.monotonic()
        free = [
            holder
            for holder in holders
            if holder not in busy and holder not in self._banned and now_s >= self._rests_until_s(holder)
        ]
        for _ in range(self._workers):
            for holder in free:  # in turns: what is wanted may be less than all of one have hands for
                workers[asyncio.create_task(self._work(holder), name=f"from {holder}")] = holder

    def _rests_until_s(self, holder: str) -> float:
        until_s, _ = self._rests.get(holder, (0.0, 0.0))
        return until_s

    async def _wait(self, workers: dict[asyncio.Task[None], str]) -> None:
        if not workers:
            await asyncio.sleep(PAUSE_S)
            return
        done, _ = await asyncio.wait(workers, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            workers.pop(task)
            task.result()

    async def _work(self, holder: str) -> None:
        """Fetches from one holder until nothing is wanted any more, or it fails. What has come is checked
        while the next is on its way."""
        checking: asyncio.Task[None] | None = None
        try:
            while self._wanted and holder not in self._banned:
                segment = self._wanted.popleft()
                try:
                    content = await self._read(holder, segment)
                except ChoirError as error:
                    self._wanted.appendleft(segment)
                    self._rest(holder, error.message)
                    break
                except asyncio.CancelledError:
                    self._wanted.appendleft(segment)
                    raise
                before, checking = (
                    checking,
                    asyncio.create_task(self._check(holder, segment, content), name=f"check from {holder}"),
                )
                del content
                if before is not None:
                    await before
            if checking is not None:
                await checking
        except BaseException:
            if checking is not None:
                checking.cancel()
                await asyncio.gather(checking, return_exceptions=True)
            raise

    async def _check(self, holder: str, segment: range, content: bytes) -> None:
        wrong = await asyncio.to_thread(self._take, segment, content)
        if wrong:
            self._wanted.append(segment)
            self._ban(holder, wrong)
            return
        self._rests.pop(holder, None)
        self.fetched_bytes += len(content)

    async def _read(self, holder: str, segment: range) -> bytes:
        start, length = segment.start * self._table.chunk_bytes, self._table.length(segment)
        step = frame_bytes(self._client)
        if length <= step:
            return await read_range(self._client, holder, self._table.sha256, start, length)
        frames = [
            await read_range(self._client, holder, self._table.sha256, start + at, min(step, length - at))
            for at in range(0, length, step)
        ]
        return b"".join(frames)

    def _take(self, segment: range, content: bytes) -> list[int]:
        """In a thread: checks and writes. Chunks that are wrong are told, and nothing of them is kept."""
        wrong = list(self._table.wrong(segment, content))
        if not wrong:
            self._sink(segment, content)
        return wrong

    def _rest(self, holder: str, why: str) -> None:
        until_s, pause_s = self._rests.get(holder, (0.0, PAUSE_S / 2))
        now_s = time.monotonic()
        self._last_word = why
        if now_s < until_s:
            return
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._rests[holder] = (now_s + pause_s, pause_s)
        log.info("a holder is left alone for a while", holder=holder, why=why, for_s=pause_s)

    def _ban(self, holder: str, wrong: list[int]) -> None:
        self._last_word = f"chunk {wrong[0]} from {holder} is not what the catalogue says"
        self._banned[holder] = self._last_word
        log.error("a holder sends other bytes", holder=holder, sha256=self._table.sha256, chunks=wrong[:8])

    def _nobody(self) -> PullFailed:
        return PullFailed(
            f"nothing of the file {self._table.sha256} has come for {self._patience_s:g} s: "
            f"{self._last_word}. What has come is kept: the same pull goes on from there",
            field="sha256",
            retry_after_s=LONGEST_PAUSE_S,
        )
