"""Events become the same rows whether they are read as a batch or one by one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from schemas.events import Event
from schemas.tests.golden.samples import SAMPLES
from services.metrics.ingest.decoding import Decoder
from services.metrics.ingest.stored_event import StoredEvent, microseconds
from services.metrics.store.tables import event_tables
from services.metrics.tests.mesh import FAILED, task_completed

SAMPLED = {event.kind: event for event in SAMPLES.values() if isinstance(event, Event)}
DREAMT = b'{"schema_version":1,"kind":"task_completed","dreamt":true}'


def stored(number: int, event: Event, body: bytes | None = None) -> StoredEvent:
    subject = f"events.{event.service}.{event.kind}"
    return StoredEvent(number, 1_000_000 * number, subject, event.to_bytes() if body is None else body)


def rows(events: list[StoredEvent], kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Decoder().decode(events, 3).tables[kind].to_pylist()
    return found


@pytest.mark.parametrize("kind", sorted(event_tables()))
def test_every_kind_is_read_alike_as_a_batch_and_one_by_one(kind: str) -> None:
    event = SAMPLED[kind]
    together = rows([stored(1, event), stored(2, event)], kind)
    # An event that nobody can read sends the whole batch through the models, one by one.
    apart = rows([stored(1, event), stored(2, event), stored(3, event, DREAMT)], kind)
    assert together == apart
    assert [row["sequence"] for row in together] == [1, 2]
    assert {(row["stream_epoch"], row["event_id"]) for row in together} == {(3, event.event_id)}


@pytest.mark.parametrize("kind", sorted(event_tables()))
def test_fields_that_a_message_leaves_out_are_what_the_model_says(kind: str) -> None:
    model = event_tables()[kind].model
    event = SAMPLED[kind]
    needed = {name: getattr(event, name) for name, field in model.model_fields.items() if field.is_required()}
    shortest = model(**needed)
    body = shortest.model_dump_json(exclude_defaults=True).encode()
    body = body.replace(b"{", f'{{"schema_version":1,"kind":"{kind}",'.encode(), 1)
    short = stored(1, shortest, body)
    assert rows([short], kind) == rows([short, stored(2, event, DREAMT)], kind)
    assert rows([short], kind) == rows([stored(1, shortest)], kind)


def test_nested_fields_times_and_lists_have_columns() -> None:
    row = rows([stored(1, task_completed(7, error=FAILED))], "task_completed")[0]
    assert row["timings_total_duration_ns"] == 7
    assert row["error_code"] == "generation_failed"
    assert row["at"] == datetime(2025, 6, 15, 15, 6, 40, 70_000)
    assert row["stored_at"] == datetime(1970, 1, 1, 0, 0, 1)
    accepted = rows([stored(1, SAMPLED["request_accepted"])], "request_accepted")[0]
    assert isinstance(accepted["models"], list) and accepted["models"]


def test_each_event_of_a_batch_is_in_exactly_one_table() -> None:
    events = [stored(number, task_completed(number)) for number in range(1, 9)]
    events[2] = stored(3, task_completed(3), b"{")
    events[5] = StoredEvent(6, 0, "events.agent.unheard_of", b"{}")
    decoded = Decoder().decode(events, 0)
    read = decoded.tables["task_completed"]["sequence"].to_pylist()
    assert decoded.unread is not None
    assert sorted(read + decoded.unread["sequence"].to_pylist()) == list(range(1, 9))
    assert set(decoded.unread["sequence"].to_pylist()) == {3, 6}


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("2026-11-21T01:36:24.903926013Z", 1_795_224_984_903_926),
    ],
)
def test_the_broker_s_time_is_read_to_the_microsecond(stamp: str, expected: int) -> None:
    assert microseconds(stamp) == expected
