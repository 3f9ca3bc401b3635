"""Whatever a body holds, it is a row or kept as unread, and the events around it are stored."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

from infra.testing.mesh import eventually, open_mesh
from schemas import subjects
from schemas.errors import QueryFailed
from schemas.events import Event
from schemas.tests.golden.samples import SAMPLES
from services.metrics.ingest.decoding import Decoded, Decoder
from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.ingest.writer import Writer
from services.metrics.service import Metrics
from services.metrics.settings import MetricsSection
from services.metrics.store.tables import literal, quoted
from services.metrics.tests.mesh import asking, count_of, fill, has, task_completed, value
from services.metrics.tests.test_parquet import opened

DOCUMENTS = [json.loads(event.to_bytes()) for event in SAMPLES.values() if isinstance(event, Event)]
HOSTILE = (
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "7" * 5_000),
    *(
        "1e300",
        "-1e300",
        "1e15",
        "-1e15",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "0.1",
        "-1",
        "253402300800",
    ),
    *('""', '"\\u0000"', '"\\ud800"', '"\\n"', '"' + "x" * 10_000 + '"', '"9223372036854775808"'),
    *("null", "true", "[]", "{}", "[null]", "[[1]]", "[9223372036854775808]", '{"a": 1, "a": 2}'),
    *("[" * 300 + "]" * 300, "[" * 5_000, "", "}", "\x00", "\ufeff"),
)
"""Values as they stand in JSON, and some that JSON does not have."""


def paths(document: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The way to every field of a document."""
    if not isinstance(document, dict):
        return [at]
    return [path for key, value in document.items() for path in [(*at, key), *paths(value, (*at, key))]]


def spoilt(document: dict[str, Any], path: tuple[str, ...], hostile: str) -> bytes:
    """The document with one value replaced by a text that may be no JSON at all."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "the hostile value"
    return json.dumps(copy).replace('"the hostile value"', hostile).encode()


@st.composite
def hostile_events(draw: st.DrawFn) -> tuple[str, bytes]:
    """A kind, and a body that is nearly one of that kind, or nothing of the sort."""
    document = draw(st.sampled_from(DOCUMENTS))
    kind = draw(st.sampled_from([document["kind"], "task_completed", "node_sampled", "unheard_of"]))
    path = draw(st.sampled_from(paths(document)))
    body = draw(
        st.one_of(
            st.sampled_from(HOSTILE).map(partial(spoilt, document, path)),
            st.integers().map(str).map(partial(spoilt, document, path)),
            st.floats().map(json.dumps).map(partial(spoilt, document, path)),
            st.sampled_from(HOSTILE).map(str.encode),
            st.binary(max_size=60),
        )
    )
    return kind, body


def as_stored(first: int, events: list[tuple[str, bytes]]) -> list[StoredEvent]:
    return [
        StoredEvent(first + number, 1_000_000, subjects.event("agent", kind), body)
        for number, (kind, body) in enumerate(events)
    ]


def rows_of(database: Any, sequences: range) -> dict[int, list[str]]:
    """In which tables each sequence has a row."""
    found: dict[int, list[str]] = {sequence: [] for sequence in sequences}
    tables = ("unread_events", *Decoder().kinds)
    every = " UNION ALL ".join(f"SELECT sequence, {literal(name)} FROM {quoted(name)}" for name in tables)
    with database.cursor() as cursor:
        for sequence, table in cursor.execute(
            f"FROM ({every}) WHERE sequence >= ?", [sequences.start]
        ).fetchall():
            found[sequence].append(table)
    return found


def test_hundreds_of_hostile_events_are_each_stored_once_beside_good_ones(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    reached = Position()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(hostile_events(), min_size=1, max_size=30))
    def every_event_is_one_row(events: list[tuple[str, bytes]]) -> None:
        nonlocal reached
        good = ("task_completed", task_completed(1).to_bytes())
        batch = as_stored(reached.sequence + 1, [good, *events, good])
        first, last = batch[0].sequence, batch[-1].sequence
        reached = writer.write(batch, reached)
        assert reached.sequence == last
        tables = rows_of(database, range(first, last + 1))
        assert {len(several) for several in tables.values()} == {1}
        assert tables[first] == tables[last] == ["task_completed"]

    every_event_is_one_row()
    with database.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM unread_events WHERE why = ''").fetchone() == (0,)
        dates = cursor.execute('SELECT min("at"), max("at") FROM events').fetchone()
    assert dates is not None and all(isinstance(date, datetime) for date in dates), (
        "clients can read all dates"
    )
    database.close()


GOOD = task_completed(1).to_bytes()
SPOILERS = {
    "an integer that no column holds": GOOD.replace(b'_tokens":12', b'_tokens":9223372036854775808'),
    "a time that no calendar has": GOOD.replace(b'"at_s":1750000000.01', b'"at_s":1e300'),
    "a time after the year 9999": GOOD.replace(b'"at_s":1750000000.01', b'"at_s":1e12'),
    "a time that is no number": GOOD.replace(b'"at_s":1750000000.01', b'"at_s":NaN'),
    "a version of five thousand digits": b'{"schema_version":' + b"7" * 5_000 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS.keys())
def test_one_event_that_no_row_can_hold_is_kept_as_unread_with_its_reason(
    spoiler: bytes, tmp_path: Path
) -> None:
    assert spoiler != GOOD
    database, writer = opened(tmp_path)
    batch = as_stored(1, [("task_completed", body) for body in (GOOD, spoiler, GOOD)])
    assert writer.write(batch, Position()).sequence == 3
    assert rows_of(database, range(1, 4)) == {
        1: ["task_completed"],
        2: ["unread_events"],
        3: ["task_completed"],
    }
    with database.cursor() as cursor:
        kept = cursor.execute("SELECT why, body FROM unread_events").fetchall()
    assert kept[0][0] and kept[0][1] == spoiler.decode()
    database.close()


async def test_the_service_goes_on_after_hostile_events(
    mesh_url: str, connection: Client, tmp_path: Path
) -> None:
    service = Metrics(MetricsSection(folder=tmp_path, export_interval_s=0))
    await service.start(open_mesh(connection, "metrics"))
    subject = subjects.event("agent", "task_completed")
    async with asking(mesh_url) as choir:
        for number, spoiler in enumerate(SPOILERS.values()):
            await connection.publish(subject, spoiler)
            await connection.publish(subject, task_completed(number).to_bytes())
        await eventually(lambda: has(choir, "task_completed", len(SPOILERS)), 180)
        assert await count_of(choir, "unread_events") == len(SPOILERS)
        assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == len(SPOILERS)
    assert service.load().state == "ready"
    await service.stop()


async def test_a_batch_that_fails_in_its_middle_is_gone_on_with_and_not_stored_twice(
    mesh_url: str, connection: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is short at the edge of the database: it takes ten events at once, and some only later."""
    service = Metrics(MetricsSection(folder=tmp_path, export_interval_s=0))
    await service.start(open_mesh(connection, "metrics"))
    real, refused = Writer._store, 0

    def short_of_memory(writer: Writer, decoded: Decoded, after: Position, *gone: Any) -> None:
        nonlocal refused
        rows = sum(table.num_rows for table in decoded.tables.values())
        if rows > 10 or (refused < 3 and 75 <= after.sequence < 85):
            refused += rows == 1
            raise duckdb.OutOfMemoryException("Out of Memory Error")
        real(writer, decoded, after, *gone)

    monkeypatch.setattr(Writer, "_store", short_of_memory)
    await fill(connection, (task_completed(number) for number in range(100)))
    async with asking(mesh_url) as choir:

        async def all_stored() -> bool:
            try:
                return await has(choir, "task_completed", 100)
            except QueryFailed:  # cut off, twice: batches find no memory
                return False

        await eventually(all_stored, 180)
        assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == 100
    assert refused == 3 and service.load().state == "ready"
    await service.stop()
