"""A live copy of a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.js.kv import KeyValue

from schemas import subjects
from services.chassis.bucket_view import BucketView
from services.chassis.storage import Stored
from services.chassis.tests.cable import mesh_on_a_cable
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


async def test_what_was_deleted_while_the_connection_was_lost_is_gone_afterwards(
    mesh_url: str, connection: Client
) -> None:
    kv = await bucket(connection)
    for key in ("agent.stays", "agent.changes", "agent.deleted", "agent.purged"):
        await kv.put(key, b"old")
    async with mesh_on_a_cable(mesh_url) as (mesh, way):
        copy = Copy(mesh.client)
        mesh.connection.on_reconnect(copy.view.reload)
        await copy.view.start()
        assert len(copy.values) == 4
        await way.cut_from(mesh)
        await kv.delete("agent.deleted")
        await connection.jetstream().purge_stream(
            subjects.bucket_stream(subjects.SCORES_BUCKET),
            subject=subjects.bucket_key(subjects.SCORES_BUCKET, "agent.purged"),
        )
        await kv.put("agent.changes", b"new")
        await kv.put("agent.comes", b"new")
        await way.mend()
        expected = {"agent.stays": b"old", "agent.changes": b"new", "agent.comes": b"new"}
        await eventually(lambda: copy.values == expected)


class SlowReads(BucketView):
    """A view whose reads are answered late: what `meanwhile` does has been heard by then."""

    meanwhile: Callable[[], Awaitable[None]]

    async def _read(self, subject: str) -> Stored | None:
        stored = await super()._read(subject)
        await self.meanwhile()
        return stored


async def test_what_is_heard_while_the_bucket_is_read_is_not_undone_by_what_was_read_before(
    connection: Client,
) -> None:
    kv = await bucket(connection)
    await kv.put("agent.changed", b"old")
    await kv.put("agent.deleted", b"old")
    told: list[tuple[str, bytes | None]] = []
    view = SlowReads(
        connection,
        subjects.SCORES_BUCKET,
        lambda key, value: told.append((key, value)),
        lambda key: told.append((key, None)),
    )
    done = False

    async def meanwhile() -> None:
        nonlocal done
        if done:
            return
        done = True
        await kv.put("agent.changed", b"new")
        await kv.delete("agent.deleted")
        await eventually(lambda: ("agent.changed", b"new") in told and ("agent.deleted", None) in told)

    view.meanwhile = meanwhile
    await view.start()
    assert dict(told) == {"agent.changed": b"new", "agent.deleted": None}
