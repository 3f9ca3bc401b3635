"""Spans for an OpenTelemetry collector, over OTLP/HTTP: off unless `[otlp] endpoint` is set.

A span is one piece of work (see `tracing`); its attributes and span events are the events that were
published while it was done. The SDK sends from a thread of its own and drops what a collector does not
take: nothing here delays a request. Needs the extra `choir[otlp]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer, set_span_in_context
from opentelemetry.trace import SpanKind as Kind
from opentelemetry.trace.status import Status, StatusCode

from schemas.events import Event
from services.chassis.identity import Identity
from services.chassis.telemetry import genai
from services.chassis.telemetry.tracing import Span, Work

TRACES_PATH = "/v1/traces"
EXPORT_TIMEOUT_S = 5.0
"""For one batch, with all its attempts."""
CLOSE_PATIENCE_S = 4.0
"""For the last spans when a service stops: on a busy host a collector that is there takes its time."""
NAMESPACE = "choir"


@dataclass
class _Ids(IdGenerator):
    """Hands the SDK the identifiers that the messages carried."""

    trace_id: int = 0
    span_id: int = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


def traces_url(endpoint: str) -> str:
    """Where spans go: an endpoint without a path is a collector's base address."""
    bare = urlsplit(endpoint).path in ("", "/")
    return endpoint.rstrip("/") + TRACES_PATH if bare else endpoint


class SpanExport:
    """Sends the work of one service instance to a collector."""

    def __init__(self, endpoint: str, identity: Identity) -> None:
        resource = Resource(
            {
                genai.SERVICE_NAME: identity.service,
                genai.SERVICE_NAMESPACE: NAMESPACE,
                genai.SERVICE_INSTANCE: identity.instance,
                genai.SERVICE_VERSION: identity.version,
                genai.HOST_NAME: identity.host,
            }
        )
        self._ids = _Ids()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(traces_url(endpoint), timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Tracer = self._provider.get_tracer("choir", identity.version)

    def send(self, work: Work, facts: list[Event]) -> None:
        """Hands over a finished piece of work and what happened in it."""
        span = work.span
        self._ids.trace_id, self._ids.span_id = int(span.trace_id, 16), int(span.span_id, 16)
        sent = self._tracer.start_span(
            _name(work, facts),
            context=set_span_in_context(NonRecordingSpan(_parent(span))) if span.parent_span_id else None,
            kind=Kind.SERVER if work.kind == "server" else Kind.CONSUMER,
            start_time=_ns(work.started_s),
        )
        sent.set_attribute(genai.MESSAGING_SYSTEM, "nats")
        sent.set_attribute(genai.MESSAGING_DESTINATION, work.subject)
        for fact in facts:
            attributes = genai.attributes_of(fact)
            sent.set_attributes(attributes)
            sent.add_event(fact.kind, attributes, timestamp=_ns(fact.at_s))
            if genai.ERROR_TYPE in attributes:
                sent.set_status(Status(StatusCode.ERROR, str(attributes[genai.ERROR_TYPE])))
        sent.end(_ns(work.ended_s))

    async def close(self) -> None:
        """Sends what is left, for a moment; a collector that is away keeps no service from ending."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_PATIENCE_S):
                await done.wait()


def _name(work: Work, facts: list[Event]) -> str:
    """The convention's name for work that one model did (`chat llama`), else what was asked for."""
    for fact in facts:
        attributes = genai.attributes_of(fact)
        if genai.REQUEST_MODEL in attributes:
            return f"{genai.CHAT} {attributes[genai.REQUEST_MODEL]}"
    return work.name


def _parent(span: Span) -> SpanContext:
    return SpanContext(
        int(span.trace_id, 16),
        int(span.parent_span_id or "0", 16),
        is_remote=True,
        trace_flags=TraceFlags(int(span.flags, 16)),
    )


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
