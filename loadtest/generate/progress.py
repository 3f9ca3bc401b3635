"""The progress of a generator process: counts, and the latest latencies."""

from __future__ import annotations

import math
from collections import Counter
from typing import TypedDict

from loadtest.generate.generator import Generator
from loadtest.generate.request_record import OK

MOST_LATENCIES = 400


class Snapshot(TypedDict):
    """Counts since the start, of errors by their codes too; `e2e_ms`, `ttft_ms` and `lag_ms` of what ended
    since the last one."""

    at_s: float
    sent: int
    ended: int
    failed: int
    errors: dict[str, int]
    in_flight: int
    tokens: int
    e2e_ms: list[float]
    ttft_ms: list[float]
    lag_ms: list[float]


class Progress:
    """Looks at a generator's records, each of them until it has ended."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._seen = 0
        self._pending: list[int] = []
        self._ended = self._tokens = 0
        self._errors: Counter[str] = Counter()

    def next(self) -> Snapshot:
        """What is new."""
        records = self._generator.records
        started = range(self._seen, len(records))
        lag_ms = [(records[i].sent_s - records[i].intended_s) * 1000 for i in started][:MOST_LATENCIES]
        looked_at = [*self._pending, *started]
        self._seen = len(records)
        self._pending = [i for i in looked_at if records[i].open]
        done = [records[i] for i in looked_at if not records[i].open]
        self._ended += len(done)
        self._errors.update(record.error for record in done if record.error != OK)
        self._tokens += sum(record.tokens for record in done)
        good = [record for record in done if record.error == OK][:MOST_LATENCIES]
        return {
            "at_s": self._generator.clock(),
            "sent": len(records),
            "ended": self._ended,
            "failed": self._errors.total(),
            "errors": dict(self._errors),
            "in_flight": len(self._generator.in_flight),
            "tokens": self._tokens,
            "e2e_ms": [(record.done_s - record.sent_s) * 1000 for record in good],
            "ttft_ms": [(f.first_s - f.sent_s) * 1000 for f in good if not math.isnan(f.first_s)],
            "lag_ms": lag_ms,
        }
