"""The mesh over NATS: `choir.ask`, with one subscription for all replies.

It is leaner than the Python client, so that one process can send thousands of requests a second. Like that
client it does not give up a request whose reply was lost with the connection: it fetches the result under
the same id, and asks again only if the mesh does not know of the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Collection, Coroutine
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic_core import from_json

from loadtest.faults import NoMesh
from loadtest.generate.request_record import LOST, OK, TIMED_OUT, RequestRecord
from loadtest.generate.workloads import Fields
from loadtest.targets.target import Clock
from schemas import subjects
from schemas.broker.catalog import CLIENT_USER
from schemas.commands import Ask
from services.chassis.nats.connecting.ending import end_in_time
from services.chassis.process.cancelling import ended
from services.client.finding.mesh_url import find_mesh
from services.client.reliable_request import SHORTEST_S

CONNECT_PATIENCE_S = 5.0
RETRY_AFTER_S = 0.2
DEFAULT_TIMEOUT_S = Ask.model_fields["timeout_s"].default
FETCH_WAIT_S = 5.0
SILENCE_S = FETCH_WAIT_S + 1.5
"""How long silence is borne, as by the Python client, before the result is asked for."""
LOOK_INTERVAL_S = 0.5
SETTLE_PATIENCE_S = 3.0
PENDING_BYTES = 64 * 1024 * 1024
NOBODY = "nobody_listens"
UNKNOWN = "unknown_request"
PASSING = ("not_ready", "broker_unavailable")


class MeshTarget:
    """A mesh at a URL. Request ids are `<run>-<number>`."""

    def __init__(self, url: str, run: str) -> None:
        self._url = url
        self._run = run
        self._clock: Clock
        self._client: Client
        self._prefix = ""
        self._records: dict[str, tuple[RequestRecord, Fields]] = {}
        self._heard_s: dict[str, float] = {}
        self._outcomes: dict[int, float] = {}
        self._settling = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, clock: Clock) -> None:
        """Connects; a connection that is lost later is made again, and what was open is asked again."""
        end_in_time()
        mesh = find_mesh(self._url)
        self._clock = clock
        try:
            async with asyncio.timeout(CONNECT_PATIENCE_S):
                self._client = await nats.connect(
                    mesh.servers,
                    name="loadtest",
                    **mesh.credentials,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,
                    reconnected_cb=self._reconnected,
                    error_cb=_ignore,
                    pending_size=PENDING_BYTES,
                    inbox_prefix=subjects.inbox_prefix(mesh.user or CLIENT_USER).encode(),
                )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            raise NoMesh(f"no broker answers at {self._url}: {error or 'it took too long'}") from error
        self._prefix = self._client.new_inbox()
        await self._client.subscribe(f"{self._prefix}.*", cb=self._on_reply, pending_bytes_limit=0)
        self._in_background(self._ask_again())

    async def send(self, record: RequestRecord, fields: Fields) -> None:
        """Publishes an `Ask`; tokens and result come to an inbox of its own."""
        token = str(record.number)
        self._records[token] = (record, fields)
        request = {"request_id": f"{self._run}-{token}", **fields}
        await self._publish(_where(fields), request, token)

    async def _send_again(self, record: RequestRecord, fields: Fields) -> None:
        """The same request, with the time that it has left: as the Python client, which waits no longer."""
        left_s = record.sent_s + patience_of(fields) - self._clock()
        timeout_s = max(SHORTEST_S, round(left_s, 1))
        request = {"request_id": f"{self._run}-{record.number}", **fields, "timeout_s": timeout_s}
        await self._publish(_where(fields), request, str(record.number))

    async def settle(self, records: Collection[RequestRecord]) -> None:
        """Asks the mesh what became of the requests that nobody answered."""
        self._settling = True
        for record in records:
            record.fetched = True
            await self._fetch(record, wait_s=0.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_PATIENCE_S):
                while any(record.open for record in records):  # noqa: ASYNC110  (replies end them)
                    await asyncio.sleep(0.05)
        for record in records:
            record.end(self._clock(), TIMED_OUT)

    async def close(self) -> None:
        """Lets go of the connection."""
        await ended(self._tasks)
        # Without a broker nats-py writes to a transport that is closed, which uvloop calls a RuntimeError.
        with contextlib.suppress(TimeoutError, OSError, RuntimeError, nats.errors.Error):
            async with asyncio.timeout(CONNECT_PATIENCE_S):
                await self._client.close()

    async def _publish(self, subject: str, request: dict[str, Any], token: str) -> None:
        self._heard_s[token] = self._clock()
        with contextlib.suppress(nats.errors.OutboundBufferLimitError):  # a broker that is gone for long
            payload = json.dumps(request).encode()
            await self._client.publish(subject, payload, reply=f"{self._prefix}.{token}")

    async def _fetch(self, record: RequestRecord, wait_s: float) -> None:
        request = {"request_id": f"{self._run}-{record.number}", "wait_s": wait_s}
        await self._publish(subjects.FETCH, request, str(record.number))

    async def _on_reply(self, msg: Msg) -> None:
        at_s = self._clock()
        entry = self._records.get(msg.subject[len(self._prefix) + 1 :])
        if entry is None:
            return
        record, fields = entry
        self._heard_s[str(record.number)] = at_s
        if not msg.data and not msg.headers:
            return  # the end of a stream of replies
        match (msg.headers or {}).get(subjects.KIND_HEADER):
            case "token":
                record.chunk(str(from_json(msg.data)["agent"]), at_s)
            case "result":
                self._take_result(record, at_s, from_json(msg.data))
            case "error":
                self._take_error(record, fields, at_s, from_json(msg.data)["error"]["code"])
            case _:  # the broker says that nobody listens
                self._take_error(record, fields, at_s, NOBODY)

    def _take_result(self, record: RequestRecord, at_s: float, result: dict[str, Any]) -> None:
        """Counts a result; the same one may come twice where it was fetched, another one may not."""
        completed_at_s = float(result["completed_at_s"])
        if self._outcomes.setdefault(record.number, completed_at_s) == completed_at_s:
            record.results = max(1, record.results)
        else:
            record.results += 1
        error = result.get("error")
        tokens = sum(int(answer.get("generated_tokens", 0)) for answer in result.get("answers", ()))
        record.end(at_s, error["code"] if error else OK, tokens)

    def _take_error(self, record: RequestRecord, fields: Fields, at_s: float, code: str) -> None:
        """An error ends the request, unless a client would bear with it for a while."""
        if code == NOBODY and not self._settling and at_s < record.sent_s + patience_of(fields):
            again = self._fetch(record, FETCH_WAIT_S) if record.fetched else self._send_again(record, fields)
            self._soon(again)
        elif not record.fetched:
            record.end(at_s, code)
        elif code == UNKNOWN and not self._settling:  # it was on its way when the connection was lost
            self._soon(self._send_again(record, fields))
        elif code not in PASSING:
            record.end(at_s, LOST if code == UNKNOWN else code)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        async def after_a_pause() -> None:
            await asyncio.sleep(RETRY_AFTER_S)
            await work

        self._in_background(after_a_pause())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconnected(self) -> None:
        """What was on its way is lost: nobody need wait for it."""
        self._heard_s = dict.fromkeys(self._heard_s, -math.inf)

    async def _ask_again(self) -> None:
        """Fetches the results of what nobody has said anything of for long: their routers may have died."""
        while not self._settling:
            await asyncio.sleep(LOOK_INTERVAL_S)
            late_s = self._clock() - SILENCE_S
            for token, heard_s in list(self._heard_s.items()):
                record = self._records[token][0]
                if not record.open:
                    del self._heard_s[token]
                elif heard_s < late_s:
                    record.fetched = True
                    await self._fetch(record, FETCH_WAIT_S)


def _where(fields: Fields) -> str:
    """Where such a request is asked: what streams has a subject of its own."""
    return subjects.STREAM_ASK if fields.get("stream") else subjects.ASK


def patience_of(fields: Fields) -> float:
    """How long a client of such a request waits for a router, in seconds."""
    return float(fields.get("timeout_s", DEFAULT_TIMEOUT_S))


async def _ignore(_error: Exception) -> None:
    """What goes wrong on the connection shows in the records."""
