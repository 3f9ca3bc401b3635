"""Publishes events on subjects that the EVENTS stream captures: fire and forget to one broker, acknowledged
by a cluster.

A fact about a request is placed in its trace. Where spans are exported as well, they get the facts that were
noted while their work was done.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client
from nats.nuid import NUID
from pydantic_core import to_json

from schemas import subjects
from schemas.errors import BrokerUnavailable, ErrorBody
from schemas.events import Event
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.connection import clustered
from services.chassis.telemetry.acknowledged import Acknowledged, Unsent
from services.chassis.telemetry.tracing import Span, Work, current_span

LINGER_S = 0.1
"""Events wait so long for one another before they are sent: the median request meets no flush, neither at
this service nor at the others on its way."""
AT_ONCE = 8
"""After so many events the event loop sees to its other work, which is somebody's request."""
MAX_OPEN_SPANS = 10_000
DROPPED_TOLD_S = 600.0
"""How long the lease speaks of events that could not be sent."""

log = get_logger("chassis.events")


class Spans(Protocol):
    """Where finished work goes besides EVENTS."""

    def send(self, work: Work, facts: list[Event]) -> None:
        """Takes a piece of work and what happened in it; never blocks."""

    async def close(self) -> None:
        """Sends what is left."""


class EventLog:
    """Says what happened in one service instance.

    Facts are noted at once and published a moment later, together, so that they cost no request its time.
    Not `enabled`, nothing is published. `dropped` counts what could not be sent.
    """

    def __init__(
        self, client: Client, identity: Identity, *, enabled: bool = True, spans: Spans | None = None
    ) -> None:
        self._client = client
        self._identity = identity
        self._enabled = enabled
        self._spans = spans
        self._facts: dict[str, list[Event]] = {}
        self._ended: list[Work] = []
        self.dropped = 0
        self._dropped_at_s = -math.inf
        self._id_prefix = NUID().next().decode()
        self._told = 0
        self._who = {"service": identity.service, "instance": identity.instance, "host": identity.host}
        self._noted: list[tuple[float, type[Event], Span | None, dict[str, Any]]] = []
        self._steps: list[Callable[[], Awaitable[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._one_flush = asyncio.Lock()
        self._acknowledged = Acknowledged(client)

    def publish(self, kind: type[Event], *, at_s: float | None = None, **fields: Any) -> None:
        """Notes that an event of `kind` has happened now, or at `at_s`.

        One that is given its `event_id` is stored once, whoever tells it again within the stream's window.
        """
        if not self._enabled and self._spans is None:
            return
        span = current_span() if "request_id" in fields else None
        self._noted.append((time.time() if at_s is None else at_s, kind, span, fields))
        self._flush_soon()

    @property
    def problem(self) -> ErrorBody | None:
        """What the lease says of events that could not be sent within the last DROPPED_TOLD_S."""
        if time.monotonic() > self._dropped_at_s + DROPPED_TOLD_S:
            return None
        return BrokerUnavailable(
            f"{self.dropped} events could not be sent since this process started, at last within the past "
            f"{DROPPED_TOLD_S / 60:g} minutes: counts of that time are too small"
        ).body()

    def then(self, step: Callable[[], Awaitable[None]]) -> None:
        """Takes a step when all that is noted now has been published, on the same connection.

        An acknowledgement that goes this way says: it is done, and it was told.
        """
        self._steps.append(step)
        self._flush_soon()

    def ended(self, work: Work) -> None:
        """Notes that a piece of work is done."""
        if self._spans is not None:
            self._ended.append(work)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._start_flush)

    def _start_flush(self) -> None:
        """One at a time: what is noted while a flush is at work is published by the next one."""
        self._timer = None
        if self._flushing is not None and not self._flushing.done():
            self._flush_soon()
            return
        self._flushing = asyncio.create_task(self.flush(), name="events")

    async def flush(self) -> None:
        """Publishes what was noted; an event that cannot be sent now is dropped, and the log says so."""
        async with self._one_flush:
            await self._flush()

    async def _flush(self) -> None:
        noted, self._noted = self._noted, []
        ended, self._ended = self._ended, []
        steps, self._steps = self._steps, []
        unsent: list[Unsent] = []
        for number, (at_s, kind, span, fields) in enumerate(noted, start=1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            whole = self._whole(at_s, span, fields)
            if self._enabled:
                await self._send(kind_of(kind), whole, fields.get("event_id"), unsent)
            if self._spans is not None and span is not None:
                self._keep_for_span(span, kind(**whole))
        if unsent and (lost := await self._acknowledged.send(unsent)):
            self._drop(lost, "nobody has stored them")
        for number, step in enumerate(steps, start=1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            await self._take(step)
        for work in ended:
            self._export(work)

    async def _take(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except nats.errors.Error as error:
            log.warning("not acknowledged, it will come again", why=str(error) or type(error).__name__)

    def _whole(self, at_s: float, span: Span | None, fields: dict[str, Any]) -> dict[str, Any]:
        """All fields of an event. Its id, if it was given none, is unique as the prefix is, and the count."""
        self._told += 1
        whole = {"event_id": f"{self._id_prefix}-{self._told}", "at_s": at_s, **self._who, **fields}
        if (request_id := fields.get("request_id")) is not None:
            whole["tenant"] = subjects.owner_of(request_id)
        if span is not None:
            whole["trace_id"] = span.trace_id
            whole["span_id"] = span.span_id
            whole["parent_span_id"] = span.parent_span_id
        return whole

    async def _send(self, kind: str, whole: dict[str, Any], once: str | None, unsent: list[Unsent]) -> None:
        """What a cluster is to store is put into `unsent`."""
        subject, body = subjects.event(self._identity.service, kind), written(kind, whole)
        if clustered(self._client):
            unsent.append(Unsent(subject, body, whole["event_id"]))
            return
        headers = None if once is None else {subjects.MESSAGE_ID_HEADER: once}
        try:
            await self._client.publish(subject, body, headers=headers)
        except nats.errors.Error as error:
            self._drop(1, str(error))

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        self._dropped_at_s = time.monotonic()
        log.warning("events dropped", count=count, why=why)

    def _keep_for_span(self, span: Span, event: Event) -> None:
        """Work whose end is never told (its task was given back) must not pile up: the oldest goes."""
        if span.span_id not in self._facts and len(self._facts) >= MAX_OPEN_SPANS:
            self._facts.pop(next(iter(self._facts)))
        self._facts.setdefault(span.span_id, []).append(event)

    def _export(self, work: Work) -> None:
        if self._spans is not None:
            self._spans.send(work, self._facts.pop(work.span.span_id, []))

    async def close(self) -> None:
        """Publishes what was noted, and hands over the spans."""
        await self.flush()
        if self._spans is not None:
            await self._spans.close()


@cache
def kind_of(model: type[Event]) -> str:
    """The `kind` of an event's class."""
    return str(model.model_fields["kind"].default)


def written(kind: str, whole: dict[str, Any]) -> bytes:
    """An event as JSON, straight from its fields: building the model first would cost three times as much.

    Every event passes here while requests wait, so what a model would check is left to whoever reads it;
    fields at their default may be left out, and null ones are.
    """
    present = {name: value for name, value in whole.items() if value is not None}
    return to_json({"schema_version": 1, "kind": kind, **present}, exclude_none=True, inf_nan_mode="null")
