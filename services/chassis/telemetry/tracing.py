"""W3C trace context: all work for one request shares a trace, and each piece of work is a span of its own.

The context travels in the message header `traceparent`
(https://www.w3.org/TR/trace-context/#traceparent-header). Inside a process it is a context variable: who
takes a message up sets it, and storage, replies and events read it, so that nothing between them has to
pass it on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, NamedTuple

from schemas import subjects

SAMPLED = "01"
_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

_current: ContextVar[Span | None] = ContextVar("choir_span", default=None)


def _new_span_id() -> str:
    return os.urandom(8).hex()


class Span(NamedTuple):
    """One piece of work in a trace; `parent_span_id` is the work that asked for it, None for the first."""

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    flags: str = SAMPLED

    @classmethod
    def begin(cls) -> Span:
        """The first span of a new trace."""
        return cls(os.urandom(16).hex(), _new_span_id())

    def child(self) -> Span:
        """New work that this span has asked for."""
        return Span(self.trace_id, _new_span_id(), self.span_id, self.flags)

    @classmethod
    def here(cls) -> Span:
        """New work, asked for by what is being done here; in a trace of its own if that is nothing."""
        doing = _current.get()
        return cls.begin() if doing is None else doing.child()

    @property
    def traceparent(self) -> str:
        """The header for messages that this work sends."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def headers(self) -> dict[str, str]:
        """The header as a message carries it."""
        return {subjects.TRACE_HEADER: self.traceparent}


@dataclass(frozen=True, slots=True)
class Work:
    """A span that has ended: a request that was served, or a command that was consumed from `subject`."""

    span: Span
    kind: Literal["server", "consumer"]
    name: str
    subject: str
    started_s: float
    ended_s: float


def read_traceparent(value: str) -> Span | None:
    """The sender's span; None if the header is malformed.

    As the specification wants it: version ff, identifiers of zeros and more than four fields of version 00
    are malformed; further fields of a later version are passed over.
    """
    match = _HEADER.fullmatch(value.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more):
        return None
    return Span(trace_id, span_id, flags=flags)


def current_span() -> Span | None:
    """The work that is being done here and now."""
    return _current.get()


def enter(span: Span) -> None:
    """From now on, until its task ends, this is what is being done."""
    _current.set(span)


@contextmanager
def within(span: Span) -> Iterator[Span]:
    """While the context is open this is what is being done."""
    token = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(token)


class Tracing:
    """Reads the trace context of messages, and counts in `ignored` what is malformed."""

    def __init__(self) -> None:
        self.ignored = 0

    def start_span(self, headers: Mapping[str, str] | None) -> Span:
        """The span of the work that a message asks for: in its sender's trace, else in a new one."""
        header = headers.get(subjects.TRACE_HEADER) if headers else None
        return self.follow(header)

    def follow(self, traceparent: str | None) -> Span:
        """The same for the header's value alone."""
        if traceparent is None:
            return Span.begin()
        sender = read_traceparent(traceparent)
        if sender is None:
            self.ignored += 1
            return Span.begin()
        return sender.child()
