"""The write-once streams never fill up."""

from __future__ import annotations

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from schemas import subjects
from services.router import room
from services.router.room import Room, purge_before


def state(bytes_: int, first_seq: int, last_seq: int) -> api.StreamState:
    """A stream of so many bytes."""
    messages = last_seq - first_seq + 1
    return api.StreamState(
        messages=messages, bytes=bytes_, first_seq=first_seq, last_seq=last_seq, consumer_count=0
    )


def test_a_stream_with_room_is_left_alone() -> None:
    assert purge_before(state(799, 1, 100), 1000) is None


def test_a_stream_without_a_limit_is_left_alone() -> None:
    assert purge_before(state(10**12, 1, 100), -1) is None


def test_of_a_nearly_full_stream_the_oldest_quarter_goes() -> None:
    assert purge_before(state(800, 101, 200), 1000) == 126


async def test_a_nearly_full_stream_loses_its_oldest_results_and_takes_new_ones(
    connection: Client, mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = JetStreamContext(connection)
    monkeypatch.setattr(room, "FULL_SHARE", 1e-6)
    for number in range(40):
        await js.publish(subjects.result(f"old-{number}"), b"x" * 1024)

    await Room(js).make()

    left = await js.stream_info(subjects.RESULTS_STREAM, subjects_filter=subjects.ALL_RESULTS)
    assert set(left.state.subjects or {}) == {subjects.result(f"old-{n}") for n in range(10, 40)}
    await js.publish(subjects.result("new"), b"y")
