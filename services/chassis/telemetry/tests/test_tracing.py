"""The trace context of a message: read as W3C wants it, and never an error."""

from __future__ import annotations

import asyncio

import pytest

from schemas import subjects
from services.chassis.telemetry.tracing import Span, Tracing, current_span, enter, read_traceparent, within

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{SPAN}-01"


def test_what_is_sent_is_what_is_read() -> None:
    span = Span.begin()
    assert read_traceparent(span.traceparent) == Span(span.trace_id, span.span_id)
    assert len(span.trace_id) == 32 and len(span.span_id) == 16


def test_work_that_a_message_asks_for_is_in_its_trace_and_a_span_of_its_own() -> None:
    tracing = Tracing()
    first, second = (tracing.start_span({subjects.TRACE_HEADER: HEADER}) for _ in range(2))
    assert first.trace_id == second.trace_id == TRACE
    assert first.parent_span_id == second.parent_span_id == SPAN
    assert len({first.span_id, second.span_id, SPAN}) == 3
    assert tracing.ignored == 0


@pytest.mark.parametrize("headers", [None, {}, {"Nats-Msg-Id": "r1"}])
def test_a_message_without_a_trace_begins_one(headers: dict[str, str] | None) -> None:
    tracing = Tracing()
    first, second = tracing.start_span(headers), tracing.start_span(headers)
    assert first.trace_id != second.trace_id
    assert (first.parent_span_id, tracing.ignored) == (None, 0)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-zz",
        "00-" + "é" * 32 + f"-{SPAN}-01",
        "0" * 100_000,
    ],
)
def test_a_malformed_trace_is_ignored_and_counted(header: str) -> None:
    tracing = Tracing()
    span = tracing.start_span({subjects.TRACE_HEADER: header})
    assert span.parent_span_id is None and span.trace_id != TRACE
    assert tracing.ignored == 1


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read_traceparent(f"01-{TRACE}-{SPAN}-00-more") == Span(TRACE, SPAN, flags="00")


def test_a_sender_that_does_not_sample_is_obeyed_all_the_way() -> None:
    span = Tracing().start_span({subjects.TRACE_HEADER: f"00-{TRACE}-{SPAN}-00"})
    assert span.child().traceparent.endswith("-00")


async def test_each_task_has_its_own_work() -> None:
    async def work() -> Span | None:
        enter(Span.begin())
        await asyncio.sleep(0)
        return current_span()

    first, second = await asyncio.gather(work(), work())
    assert first is not None and second is not None and first.trace_id != second.trace_id
    assert current_span() is None


def test_new_work_is_asked_for_by_what_is_being_done() -> None:
    with within(Span.begin()) as outer:
        assert Span.here().parent_span_id == outer.span_id
    assert Span.here().parent_span_id is None
