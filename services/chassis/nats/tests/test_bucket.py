"""A bucket: a live copy of it, and changes that nobody loses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client
from nats.js.errors import APIError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from infra.broker.provision import provision
from infra.broker.streams.definitions import bucket_config
from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.broker.lost_words import LostWords
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import BucketSpec
from schemas.errors import BrokerUnavailable, ConfigurationError, Overloaded, PayloadTooLarge
from schemas.nodes.workers import Worker
from services.chassis.nats.bucket import BYTES, Bucket, Entry, WrongRevision, messages
from services.chassis.nats.reading import Stored


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
    told: list[tuple[str, bytes | None]] = []
    watched = Bucket(
        connection,
        "test_leases",
        BYTES,
        lambda key, value: told.append((key, value)),
        lambda key: told.append((key, None)),
    )
    await watched.watch()
    await (await connection.jetstream().key_value("test_leases")).put("agent.a", b"1")
    await eventually(lambda: len(told) == 2)
    assert told == [("agent.a", b"1"), ("agent.a", None)]


async def test_a_bucket_that_was_made_before_its_updates_were_told_is_refused_and_the_way_out_named(
    connection: Client,
) -> None:
    (spec,) = (spec for spec in catalog.BUCKETS if spec.name == subjects.SCORES_BUCKET)
    silent = bucket_config(spec)
    silent.republish = None
    await connection.jetstream().update_stream(silent)
    with pytest.raises(ConfigurationError, match=r"choir_scores does not tell what(.*)choir up"):
        await Copy(connection).bucket.watch()


KEY = "agent.a"
WORKER = Worker(id="mac", type="ollama", host="127.0.0.1", port=11434, model="alpha")


@pytest.fixture
def scores(connection: Client) -> Bucket[bytes]:
    return Bucket(connection, subjects.SCORES_BUCKET, BYTES, full="no room: remove something")


async def test_a_value_is_read_as_its_message_and_one_that_is_none_is_told(connection: Client) -> None:
    told: list[object] = []
    workers = Bucket(
        connection,
        subjects.WORKERS_BUCKET,
        messages(Worker),
        on_put=lambda key, worker: told.append((key, worker)),
        on_unreadable=lambda key, error: told.append((key, error.errors()[0]["loc"])),
    )
    await workers.watch()
    await workers.update("mac", WORKER, 0)
    assert (await workers.get("mac")).value == WORKER
    await connection.publish(subjects.bucket_key(subjects.WORKERS_BUCKET, "bad"), b'{"id": 7}')
    await eventually(lambda: [said[0] for said in told if isinstance(said, tuple)] == ["mac", "bad"])
    assert told == [("mac", WORKER), ("bad", ("id",))]


async def test_a_key_is_made_changed_and_deleted_by_who_knows_its_revision(scores: Bucket[bytes]) -> None:
    assert await scores.get(KEY) == Entry(None, 0)
    made = await scores.update(KEY, b"1", 0)
    assert await scores.get(KEY) == Entry(b"1", made)
    changed = await scores.update(KEY, b"2", made)
    await scores.delete(KEY, changed)
    gone = await scores.get(KEY)
    assert gone.value is None and gone.revision > changed
    await scores.update(KEY, b"again", gone.revision)
    assert (await scores.get(KEY)).value == b"again"


@pytest.mark.parametrize("late", [0, 1])
async def test_of_two_who_change_a_key_one_does(scores: Bucket[bytes], late: int) -> None:
    first = await scores.update(KEY, b"1", 0)
    await scores.update(KEY, b"2", first)
    with pytest.raises(WrongRevision):
        await scores.update(KEY, b"3", first * late)
    with pytest.raises(WrongRevision):
        await scores.delete(KEY, first)
    assert (await scores.get(KEY)).value == b"2"


async def test_a_change_whose_word_was_lost_is_found_and_not_made_twice(
    scores: Bucket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = LostWords(monkeypatch, KEY, 1)
    made = await scores.update(KEY, b"1", 0)
    assert (words.lost, made) == (1, 1)
    assert await scores.get(KEY) == Entry(b"1", made)


async def test_a_change_that_the_broker_never_got_is_made_again(
    scores: Bucket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = LostWords(monkeypatch, KEY, 2, stored=False)
    await scores.update(KEY, b"1", 0)
    assert (words.lost, (await scores.get(KEY)).value) == (2, b"1")


async def test_a_change_that_the_broker_got_late_is_known_again(
    scores: Bucket[bytes], connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there yet when it is looked for, and the second attempt comes after it."""
    late = [b"1"]

    class LateReads(Bucket[bytes]):
        async def _read(self, key: str) -> Stored | None:
            stored = await super()._read(key)
            if late:
                await (await bucket(connection)).put(key, late.pop())
            return stored

    slow = LateReads(connection, subjects.SCORES_BUCKET, BYTES)
    LostWords(monkeypatch, KEY, 1, stored=False)
    assert await slow.update(KEY, b"1", 0) == (await scores.get(KEY)).revision


async def test_a_race_is_lost_too_where_the_word_of_it_was_lost(
    scores: Bucket[bytes], connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def another_is_faster() -> None:
        await connection.publish(subjects.bucket_key(subjects.SCORES_BUCKET, KEY), b"another")
        await eventually(arrived)

    async def arrived() -> bool:
        return (await scores.get(KEY)).value == b"another"

    LostWords(monkeypatch, KEY, 1, stored=False, meanwhile=another_is_faster)
    with pytest.raises(WrongRevision):
        await scores.update(KEY, b"mine", 0)
    assert (await scores.get(KEY)).value == b"another"


async def test_a_deletion_whose_word_was_lost_is_one(
    scores: Bucket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await scores.update(KEY, b"1", 0)
    LostWords(monkeypatch, KEY, 1)
    await scores.delete(KEY, made)
    assert (await scores.get(KEY)).value is None


async def test_a_broker_that_stores_nothing_is_unavailable(
    scores: Bucket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    LostWords(monkeypatch, KEY, 1000, stored=False)
    with pytest.raises(BrokerUnavailable, match="could not be changed"):
        await scores.update(KEY, b"1", 0)
    with pytest.raises(BrokerUnavailable, match=r"agent\.a in bucket choir_scores"):
        await scores.put(KEY, b"1")


async def test_a_change_that_two_make_at_once_is_made_twice(scores: Bucket[bytes]) -> None:
    def one_more(stored: bytes | None) -> bytes:
        return (stored or b"") + b"x"

    await asyncio.gather(*(scores.change(KEY, one_more) for _ in range(4)))
    assert (await scores.get(KEY)).value == b"xxxx"


async def test_what_is_purged_is_gone_at_once_and_soon_without_a_trace(scores: Bucket[bytes]) -> None:
    await scores.put(KEY, b"1")
    assert await scores.keys("agent.*") == [KEY]
    await scores.purge(KEY)
    assert (await scores.get(KEY)).value is None

    async def no_trace() -> bool:
        return await scores.keys(">") == [] and await scores.get(KEY) == Entry(None, 0)

    await eventually(no_trace)


async def test_what_a_bucket_has_no_room_for_is_refused_in_the_words_of_its_owner(
    scores: Bucket[bytes], connection: Client
) -> None:
    js = connection.jetstream()
    config = (await js.stream_info(subjects.bucket_stream(subjects.SCORES_BUCKET))).config
    await js.update_stream(config, max_bytes=1)
    with pytest.raises(Overloaded, match="no room: remove something"):
        await scores.update(KEY, b"1", 0)
    with pytest.raises(PayloadTooLarge):
        await scores.put(KEY, b"x" * connection.max_payload)
