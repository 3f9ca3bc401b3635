"""Publishing facts: fire and forget on subjects that the EVENTS stream captures.

A fact about a request is placed in its trace. Where spans are exported as well, they get the facts that were
noted while their work was done.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client
from nats.nuid import NUID

from schemas import subjects
from schemas.events import Event
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.tracing import Span, Work, current_span

LINGER_S = 0.02
MAX_OPEN_SPANS = 10_000

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
        self._ids = NUID()
        self._noted: list[tuple[float, type[Event], Span | None, dict[str, Any]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    def publish(self, kind: type[Event], *, at_s: float | None = None, **fields: Any) -> None:
        """Notes that an event of `kind` has happened now, or at `at_s`."""
        if not self._enabled and self._spans is None:
            return
        span = current_span() if "request_id" in fields else None
        self._noted.append((time.time() if at_s is None else at_s, kind, span, fields))
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
        self._timer = None
        self._flushing = asyncio.create_task(self.flush(), name="events")

    async def flush(self) -> None:
        """Publishes what was noted; an event that cannot be sent now is dropped, and the log says so."""
        noted, self._noted = self._noted, []
        ended, self._ended = self._ended, []
        for at_s, kind, span, fields in noted:
            event = self._event(at_s, kind, span, fields)
            if self._enabled:
                await self._send(event)
            if self._spans is not None and span is not None:
                self._keep_for_span(span, event)
        for work in ended:
            self._export(work)

    def _event(self, at_s: float, kind: type[Event], span: Span | None, fields: dict[str, Any]) -> Event:
        if span is not None:
            fields["trace_id"] = span.trace_id
            fields["span_id"] = span.span_id
            fields["parent_span_id"] = span.parent_span_id
        return kind(
            event_id=self._ids.next().decode(),
            at_s=at_s,
            service=self._identity.service,
            instance=self._identity.instance,
            host=self._identity.host,
            **fields,
        )

    async def _send(self, event: Event) -> None:
        try:
            await self._client.publish(subjects.event(self._identity.service, event.kind), event.to_bytes())
        except nats.errors.Error as error:
            self.dropped += 1
            log.warning("event dropped", kind=event.kind, why=str(error))

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
