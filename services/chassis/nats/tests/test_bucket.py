"""A live copy of a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client
from nats.js.errors import APIError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from infra.provision import bucket_config, provision
from schemas import catalog, subjects
from schemas.catalog import BucketSpec
from schemas.errors import ConfigurationError
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.streams import Stored
from services.chassis.tests.cable import mesh_on_a_cable
from services.chassis.tests.mesh import eventually


class Copy:
    """What a watched bucket has told."""

    def __init__(self, client: Client, name: str = subjects.SCORES_BUCKET) -> None:
        self.values: dict[str, bytes] = {}
        self.bucket = Bucket(client, name, BYTES, self.values.__setitem__, self._drop)

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
    await copy.bucket.watch()
    assert copy.values == {"agent.a": b"2", "agent.b": b"3"}


async def test_an_empty_bucket_is_an_empty_view(connection: Client) -> None:
    copy = Copy(connection)
    await copy.bucket.watch()
    assert copy.values == {}


async def test_a_view_follows_what_is_put_deleted_and_purged(connection: Client) -> None:
    kv = await bucket(connection)
    copy = Copy(connection)
    await copy.bucket.watch()
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
    await copy.bucket.reload()
    assert copy.values == {"agent.a": b"1"}


async def test_what_was_deleted_while_the_connection_was_lost_is_gone_afterwards(
    mesh_url: str, connection: Client
) -> None:
    kv = await bucket(connection)
    for key in ("agent.stays", "agent.changes", "agent.deleted", "agent.purged"):
        await kv.put(key, b"old")
    async with mesh_on_a_cable(mesh_url) as (mesh, way):
        copy = Copy(mesh.client)
        mesh.connection.on_reconnect(copy.bucket.reload)
        await copy.bucket.watch()
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


class SlowReads(Bucket[bytes]):
    """A bucket whose reads are answered late: what `meanwhile` does has been heard by then."""

    meanwhile: Callable[[], Awaitable[None]]

    async def _read(self, key: str) -> Stored | None:
        stored = await super()._read(key)
        await self.meanwhile()
        return stored


async def test_what_is_heard_while_the_bucket_is_read_is_not_undone_by_what_was_read_before(
    connection: Client,
) -> None:
    kv = await bucket(connection)
    await kv.put("agent.changed", b"old")
    await kv.put("agent.deleted", b"old")
    told: list[tuple[str, bytes | None]] = []
    watched = SlowReads(
        connection,
        subjects.SCORES_BUCKET,
        BYTES,
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

    watched.meanwhile = meanwhile
    await watched.watch()
    assert dict(told) == {"agent.changed": b"new", "agent.deleted": None}


async def test_what_the_broker_refuses_to_keep_is_told_to_nobody(connection: Client) -> None:
    # Given a bucket that has little room
    js = connection.jetstream()
    config = (await js.stream_info(subjects.bucket_stream(subjects.SCORES_BUCKET))).config
    config.max_bytes = 1000
    await js.update_stream(config)
    kv = await bucket(connection)
    first = await kv.put("agent.a", b"kept")
    told: list[bytes] = []
    watched = Bucket(connection, subjects.SCORES_BUCKET, BYTES, lambda _key, value: told.append(value), print)
    await watched.watch()
    # When one put comes too late, and one has no room
    with pytest.raises(KeyWrongLastSequenceError):
        await kv.update("agent.a", b"too late", last=first + 1)
    with pytest.raises(APIError, match="maximum bytes"):
        await kv.put("agent.b", b"x" * 2000)
    # Then they are not heard of, and what is kept afterwards is
    await kv.update("agent.a", b"changed", last=first)
    await eventually(lambda: b"changed" in told)
    assert told == [b"kept", b"changed"]


async def test_a_key_that_has_run_out_is_gone_from_a_view(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = BucketSpec("test_leases", "test", storage="memory", ttl_s=1, republished=True)
    monkeypatch.setattr(catalog, "BUCKETS", (leases,))
    await provision(connection, [])
    copy = Copy(connection, "test_leases")
    await copy.bucket.watch()
    await (await connection.jetstream().key_value("test_leases")).put("agent.a", b"1")
    await eventually(lambda: copy.values == {"agent.a": b"1"})
    await eventually(lambda: copy.values == {})


async def test_a_bucket_that_was_made_before_its_updates_were_told_is_refused_and_the_way_out_named(
    connection: Client,
) -> None:
    (spec,) = (spec for spec in catalog.BUCKETS if spec.name == subjects.SCORES_BUCKET)
    silent = bucket_config(spec)
    silent.republish = None
    await connection.jetstream().update_stream(silent)
    with pytest.raises(ConfigurationError, match=r"choir_scores does not tell what(.*)choir up"):
        await Copy(connection).bucket.watch()
