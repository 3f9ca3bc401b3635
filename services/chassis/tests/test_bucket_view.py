"""A live copy of a bucket."""

from __future__ import annotations

from nats.aio.client import Client
from nats.js.kv import KeyValue

from schemas import subjects
from services.chassis.bucket_view import BucketView
from services.chassis.tests.mesh import eventually


class Copy:
    """What a view has told."""

    def __init__(self, client: Client) -> None:
        self.values: dict[str, bytes] = {}
        self.view = BucketView(client, subjects.SCORES_BUCKET, self.values.__setitem__, self._drop)

    def _drop(self, key: str) -> None:
        self.values.pop(key, None)


async def bucket(client: Client) -> KeyValue:
    return await client.jetstream().key_value(subjects.SCORES_BUCKET)


async def test_a_view_begins_with_what_is_there(connection: Client) -> None:
    kv = await bucket(connection)
    await kv.put("agent.a", b"1")
    await kv.put("agent.a", b"2")
    await kv.put("agent.b", b"3")
    await kv.put("agent.gone", b"4")
    await kv.delete("agent.gone")
    copy = Copy(connection)
    await copy.view.start()
    assert copy.values == {"agent.a": b"2", "agent.b": b"3"}


async def test_an_empty_bucket_is_an_empty_view(connection: Client) -> None:
    copy = Copy(connection)
    await copy.view.start()
    assert copy.values == {}


async def test_a_view_follows_what_is_put_deleted_and_purged(connection: Client) -> None:
    kv = await bucket(connection)
    copy = Copy(connection)
    await copy.view.start()
    await kv.put("agent.a", b"1")
    await kv.put("agent.b", b"2")
    await eventually(lambda: copy.values == {"agent.a": b"1", "agent.b": b"2"})
    await kv.put("agent.a", b"3")
    await kv.delete("agent.b")
    await eventually(lambda: copy.values == {"agent.a": b"3"})
    await kv.purge("agent.a")
    await eventually(lambda: copy.values == {})


async def test_reading_again_mends_what_was_missed(connection: Client) -> None:
    kv = await bucket(connection)
    copy = Copy(connection)
    await kv.put("agent.a", b"1")
    assert copy.values == {}  # it does not listen yet
    await copy.view.reload()
    assert copy.values == {"agent.a": b"1"}
