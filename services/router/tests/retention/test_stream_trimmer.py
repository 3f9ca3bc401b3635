"""The write-once streams never fill up, and the oldest bytes are all that goes."""

from __future__ import annotations

import dataclasses

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from infra.broker.provision import provision
from schemas import subjects
from schemas.broker import catalog
from services.router.retention import oldest
from services.router.retention.oldest import cut_after
from services.router.retention.stream_trimmer import StreamTrimmer, bytes_to_free

LIMIT = 1_000_000


def state(bytes_: int) -> api.StreamState:
    """A stream of so many bytes."""
    return api.StreamState(messages=100, bytes=bytes_, first_seq=1, last_seq=100, consumer_count=0)


def test_a_stream_with_room_is_left_alone() -> None:
    assert bytes_to_free(state(799), 1000) == 0


def test_a_stream_without_a_limit_is_left_alone() -> None:
    assert bytes_to_free(state(10**12), -1) == 0


def test_a_nearly_full_stream_loses_what_it_has_above_seven_tenths() -> None:
    assert bytes_to_free(state(850), 1000) == 150


async def small_results(client: Client, monkeypatch: pytest.MonkeyPatch) -> JetStreamContext:
    """A mesh whose results may take 1 MB."""
    streams = tuple(
        dataclasses.replace(stream, max_bytes=LIMIT) if stream.name == subjects.RESULTS_STREAM else stream
        for stream in catalog.STREAMS
    )
    monkeypatch.setattr(catalog, "STREAMS", streams)
    await provision(client, [])
    return JetStreamContext(client)


async def kept(js: JetStreamContext) -> list[str]:
    """The requests whose results are stored."""
    info = await js.stream_info(subjects.RESULTS_STREAM, subjects_filter=subjects.ALL_RESULTS)
    return [subjects.request_of(subject) for subject in info.state.subjects or {}]


async def test_large_recent_results_do_not_drive_out_all_small_old_ones(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given many small results, and after them few large ones that nearly fill the stream
    js = await small_results(connection, monkeypatch)
    for number in range(200):
        await js.publish(subjects.result(f"small-{number}"), b"x" * 1_000)
    for number in range(6):
        await js.publish(subjects.result(f"large-{number}"), b"x" * 100_000)
    # When room is made
    await StreamTrimmer(connection).make()
    # Then only so many of the oldest have gone as bytes were too many
    left = (await js.stream_info(subjects.RESULTS_STREAM)).state
    assert 0.7 * LIMIT - 1_100 < left.bytes <= 0.7 * LIMIT
    names = await kept(js)
    assert len(names) == left.messages
    assert {f"large-{number}" for number in range(6)} <= set(names)
    assert f"small-{200 - (left.messages - 6)}" in names
    assert left.messages - 6 > 50


async def test_large_old_results_go_until_there_is_room_and_take_no_small_ones_with_them(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = await small_results(connection, monkeypatch)
    for number in range(8):
        await js.publish(subjects.result(f"large-{number}"), b"x" * 100_000)
    for number in range(40):
        await js.publish(subjects.result(f"small-{number}"), b"x" * 1_000)
    await StreamTrimmer(connection).make()
    names = await kept(js)
    assert sorted(name for name in names if "large" in name) == [f"large-{n}" for n in range(2, 8)]
    assert sum("small" in name for name in names) == 40


async def test_bytes_are_counted_as_the_broker_counts_them(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several batches, with and without headers."""
    monkeypatch.setattr(oldest, "BATCH", 7)
    js = JetStreamContext(connection)
    for number in range(60):
        headers = {subjects.TRACE_HEADER: f"00-{number:032x}-{number:016x}-01"} if number % 3 else None
        await js.publish(subjects.result(f"r{number}"), b"x" * (37 * number), headers=headers)
        if number == 40:
            at_41 = (await js.stream_info(subjects.RESULTS_STREAM)).state.bytes
    for size, sequence in ((at_41, 42), (at_41 - 1, 42), (at_41 + 1, 43)):
        assert await cut_after(connection, subjects.RESULTS_STREAM, 1, size) == sequence
    assert await cut_after(connection, subjects.RESULTS_STREAM, 1, 10**9) == 61
