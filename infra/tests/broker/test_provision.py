"""Provisioning on a real broker."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
import structlog.testing
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from nats.js.kv import KV_PURGE, KeyValue

from infra.broker import provision as provisioning
from infra.broker.broker import Broker
from infra.broker.provision import ensure_worker_model, provision
from infra.broker.streams.definitions import (
    VERSION_KEY,
    bucket_config,
    consumer_config,
    differences,
    stream_config,
    version_of,
)
from infra.host.operator_connection import provision_patiently
from infra.testing.plugin import connect
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import BucketSpec, ConsumerSpec, StreamSpec
from schemas.errors import ConfigurationError, MeshUnreachable


def with_stream(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> StreamSpec:
    """Change one stream of the catalog."""
    specs = {spec.name: spec for spec in catalog.STREAMS}
    specs[name] = dataclasses.replace(specs[name], **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(catalog, "STREAMS", tuple(specs.values()))
    return specs[name]


async def test_the_broker_then_agrees_with_the_catalog(connection: Client) -> None:
    js = connection.jetstream()
    await provision(connection, ["llama3.2:3b"])
    for wanted in (*map(stream_config, catalog.STREAMS), *map(bucket_config, catalog.BUCKETS)):
        info = await js.stream_info(wanted.name or "")
        assert differences(wanted, info.config) == {}, wanted.name
    for spec in catalog.consumers(["llama3.2:3b"]):
        consumer = await js.consumer_info(spec.stream, spec.name)
        assert differences(consumer_config(spec), consumer.config) == {}, spec.name


async def test_doing_it_again_changes_nothing(connection: Client) -> None:
    js = connection.jetstream()
    await js.publish(subjects.dead("router", "r1"), b"kept")
    created = {info.config.name: info.created for info in await js.streams_info()}
    await provision(connection, ["alpha"])
    assert {info.config.name: info.created for info in await js.streams_info()} == created
    assert (await js.stream_info(subjects.DEAD_STREAM)).state.messages == 1


async def test_hosts_that_start_at_once_all_find_what_they_need(tmp_path: Path) -> None:
    async with Broker(tmp_path) as broker:
        hosts = [await connect(broker.url) for _ in range(4)]
        try:
            assert await asyncio.gather(*(provision(host, ["alpha"]) for host in hosts)) == [()] * 4
            names = {info.config.name for info in await hosts[0].jetstream().streams_info()}
            assert {spec.name for spec in catalog.STREAMS} <= names
        finally:
            for host in hosts:
                await host.close()


async def test_a_store_that_is_too_small_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.broker.server.configuration.HEADROOM", 0.5)
    async with Broker(tmp_path) as broker:
        host = await connect(broker.url)
        try:
            with pytest.raises(ConfigurationError, match=r"stream (.*) could not be created: insufficient"):
                await provision(host, [])
        finally:
            await host.close()


async def test_a_changed_limit_is_updated_and_the_messages_stay(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = connection.jetstream()
    await js.publish(subjects.event("router", "test"), b"kept")
    with_stream(monkeypatch, subjects.EVENTS_STREAM, max_age_s=3600.0, why="changed")
    await provision(connection, [])
    info = await js.stream_info(subjects.EVENTS_STREAM)
    assert (info.config.max_age, info.config.description) == (3600.0, "changed")
    assert info.state.messages == 1


async def test_a_republish_rule_that_is_gone_from_the_catalog_goes_from_the_broker(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_stream(monkeypatch, subjects.TOKENS_STREAM, republish_from="", republish_to="")
    await provision(connection, [])
    assert (await connection.jetstream().stream_info(subjects.TOKENS_STREAM)).config.republish is None


async def test_a_bucket_of_a_version_that_told_nobody_what_is_stored_tells_it_from_now_on(
    connection: Client,
) -> None:
    # Given a bucket with a value in it, as the first version made it
    js = connection.jetstream()
    (spec,) = (spec for spec in catalog.BUCKETS if spec.name == subjects.PIPELINES_BUCKET)
    made = bucket_config(spec)
    made.republish, made.metadata = None, {VERSION_KEY: "1"}
    await js.update_stream(made)
    bucket = await js.key_value(spec.name)
    await bucket.put("alpha", b"kept")
    heard = await connection.subscribe(subjects.bucket_updates(spec.name))
    # When a host of this version starts
    await provision(connection, [])
    # Then the value is there, and the next one is told
    assert (await bucket.get("alpha")).value == b"kept"
    await bucket.put("alpha", b"next")
    assert (await heard.next_msg(60)).data == b"next"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"storage": "memory"}, "storage is file, wanted memory"),
        ({"retention": "work_queue"}, "retention is limits, wanted workqueue"),
    ],
)
async def test_what_cannot_change_is_refused_and_named(
    connection: Client, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    with_stream(monkeypatch, subjects.DEAD_STREAM, **changes)
    with pytest.raises(ConfigurationError, match=f"stream DEAD exists(.*){said}"):
        await provision(connection, [])


async def test_a_stream_larger_than_the_store_is_refused_in_the_brokers_words(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_stream(monkeypatch, subjects.DEAD_STREAM, max_bytes=10**13)
    with pytest.raises(ConfigurationError, match="stream DEAD could not be changed: insufficient storage"):
        await provision(connection, [])


async def test_a_consumers_ack_wait_is_updated(connection: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ConsumerSpec(
        subjects.DEAD_LETTER_CONSUMER, subjects.DEAD_STREAM, subjects.MAX_DELIVERIES_ADVISORIES, ack_wait_s=3
    )
    monkeypatch.setattr(catalog, "FIXED_CONSUMERS", (spec,))
    await provision(connection, [])
    info = await connection.jetstream().consumer_info(spec.stream, spec.name)
    assert info.config.ack_wait == 3


async def test_a_moment_in_which_nobody_answers_for_the_streams_is_borne(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = connection.jetstream()
    add, refused = js.add_consumer, 0

    async def refuses_at_first(stream: str, config: ConsumerConfig) -> ConsumerInfo:
        nonlocal refused
        if refused < 2:  # as a broker does that reads its configuration anew
            refused += 1
            raise ServiceUnavailableError
        return await add(stream, config)

    monkeypatch.setattr(js, "add_consumer", refuses_at_first)
    await ensure_worker_model(js, "new-here")
    assert refused == 2
    for priority in subjects.PRIORITIES:
        await js.consumer_info(subjects.COMMANDS_STREAM, subjects.generate_consumer(priority, "new-here"))


async def test_a_new_model_gets_its_queues(connection: Client) -> None:
    js = connection.jetstream()
    with pytest.raises(NotFoundError):
        await js.consumer_info(
            subjects.COMMANDS_STREAM, subjects.generate_consumer("batch", "org/new model:1b")
        )
    await ensure_worker_model(js, "org/new model:1b")
    await ensure_worker_model(js, "org/new model:1b")
    await js.publish(subjects.generate("batch", "org/new model:1b", "r1"), b"work")
    consumer = subjects.generate_consumer("batch", "org/new model:1b")
    pulled = await js.pull_subscribe_bind(consumer, subjects.COMMANDS_STREAM)
    (message,) = await pulled.fetch(1, timeout=60)
    assert message.data == b"work"


async def test_an_answer_is_stored_once_and_only_the_stored_one_is_republished(connection: Client) -> None:
    js = connection.jetstream()
    stored = await connection.subscribe(subjects.all_stored_answers_of("r1"))
    await js.publish(subjects.answer("r1", 0, "alpha"), b"first")
    with pytest.raises(APIError) as refused:
        await js.publish(subjects.answer("r1", 0, "alpha"), b"second")
    assert refused.value.err_code == 10077
    assert (await stored.next_msg(timeout=60)).data == b"first"
    await connection.flush()
    assert stored.pending_msgs == 0
    kept = await js.get_msg(subjects.ANSWERS_STREAM, subject=subjects.answer("r1", 0, "alpha"), direct=True)
    assert kept.data == b"first"


async def test_a_full_queue_refuses_new_commands_and_keeps_the_old_ones(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = connection.jetstream()
    with_stream(monkeypatch, subjects.COMMANDS_STREAM, max_messages=1)
    await provision(connection, ["alpha"])
    await js.publish(subjects.gather("interactive", "r1"), b"old")
    with pytest.raises(APIError) as refused:
        await js.publish(subjects.gather("interactive", "r2"), b"new")
    assert refused.value.err_code == 10077


async def test_watchers_see_a_lease_run_out(connection: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a bucket like the one of the leases, whose keys live for a second
    monkeypatch.setattr(catalog, "BUCKETS", (BucketSpec("test_leases", "test", storage="memory", ttl_s=1),))
    await provision(connection, [])
    bucket = await connection.jetstream().key_value("test_leases")
    watcher = await bucket.watchall(ignore_deletes=False)
    await bucket.put("agent.alpha", b"here")
    # When nobody renews it, then the watcher sees it, and later its end
    seen: list[KeyValue.Entry] = []
    async with asyncio.timeout(180):
        while not seen or seen[-1].operation != KV_PURGE:
            update = await watcher.updates(timeout=60)  # type: ignore[no-untyped-call]
            if update is not None:
                seen.append(update)
    assert seen[0].value == b"here"
    await watcher.stop()  # type: ignore[no-untyped-call]


async def test_the_command_says_that_no_broker_answers() -> None:
    from typer import Typer
    from typer.testing import CliRunner

    from infra.broker.provision import main

    app = Typer()
    app.command()(main)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["--url", "nats://127.0.0.1:9"])
    assert result.exit_code == 3
    assert "no broker answers at nats://127.0.0.1:9" in result.output


async def test_the_command_provisions(mesh_url: str) -> None:
    from typer import Typer
    from typer.testing import CliRunner

    from infra.broker.provision import main

    app = Typer()
    app.command()(main)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["--url", mesh_url, "--model", "epsilon"])
    assert result.exit_code == 0, result.output
    assert f"{len(catalog.BUCKETS)} buckets" in result.output


async def test_streams_in_memory_are_there_again_after_a_restart(own_broker: Broker) -> None:
    own_broker.kill()
    await own_broker.restart()
    nc = await connect(own_broker.url)
    assert len(await nc.jetstream().streams_info()) == len(catalog.STREAMS) + len(catalog.BUCKETS)
    await nc.close()


async def told(connection: Client) -> dict[str, tuple[object, ...]]:
    """What a host may change of the streams and consumers of a broker."""
    js = connection.jetstream()
    streams = {str(info.config.name): info.config for info in await js.streams_info()}
    consumer = (await js.consumer_info(subjects.DEAD_STREAM, subjects.DEAD_LETTER_CONSUMER)).config
    return {
        **{
            name: (config.max_bytes, config.description, version_of(config))
            for name, config in streams.items()
        },
        "consumer": (consumer.ack_wait, version_of(consumer)),
    }


def catalog_of(monkeypatch: pytest.MonkeyPatch, version: int, ack_wait_s: float, **changes: object) -> None:
    """The catalog of another version: its stream DEAD, and the one consumer of it, are others."""
    monkeypatch.setattr(catalog, "VERSION", version)
    with_stream(monkeypatch, subjects.DEAD_STREAM, **changes)
    consumer = ConsumerSpec(
        subjects.DEAD_LETTER_CONSUMER,
        subjects.DEAD_STREAM,
        subjects.MAX_DELIVERIES_ADVISORIES,
        ack_wait_s=ack_wait_s,
    )
    monkeypatch.setattr(catalog, "FIXED_CONSUMERS", (consumer,))


async def test_an_older_host_leaves_alone_what_a_newer_one_has_made(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a host whose catalog is newer, and has another limit
    ours = catalog.VERSION
    catalog_of(monkeypatch, ours + 1, 40, max_bytes=64 * catalog.MIB, why="newer")
    await provision(connection, [])
    made = await told(connection)
    assert made[subjects.DEAD_STREAM] == (64 * catalog.MIB, "newer", ours + 1)
    # When an older one starts
    catalog_of(monkeypatch, ours, 20, max_bytes=32 * catalog.MIB, why="older")
    with structlog.testing.capture_logs() as lines:
        left_alone = await provision(connection, [])
    # Then it changes nothing, and says so in one line
    assert await told(connection) == made
    assert f"stream {subjects.DEAD_STREAM}" in left_alone
    (line,) = [line["event"] for line in lines if "newer Choir" in line["event"]]
    assert f"consumer {subjects.DEAD_LETTER_CONSUMER} of stream {subjects.DEAD_STREAM}" in line


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_what_the_same_or_a_lower_version_made_is_updated(
    connection: Client, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    version = catalog.VERSION
    catalog_of(monkeypatch, version - before, 40, max_bytes=64 * catalog.MIB)
    await provision(connection, [])
    catalog_of(monkeypatch, version, 20, max_bytes=32 * catalog.MIB, why="updated")
    assert await provision(connection, []) == ()
    now = await told(connection)
    assert now[subjects.DEAD_STREAM] == (32 * catalog.MIB, "updated", version)
    assert now["consumer"] == (20, version)


async def test_what_no_version_has_signed_is_updated(connection: Client) -> None:
    js = connection.jetstream()
    config = (await js.stream_info(subjects.DEAD_STREAM)).config
    config.metadata, config.description = {}, "made before there were versions"
    await js.update_stream(config)
    unsigned = (await js.stream_info(subjects.DEAD_STREAM)).config
    assert version_of(unsigned) == 0
    await provision(connection, [])
    signed = (await js.stream_info(subjects.DEAD_STREAM)).config
    assert (version_of(signed), signed.description != config.description) == (catalog.VERSION, True)


async def test_a_broker_whose_api_is_away_for_a_moment_is_provisioned_when_it_is_back(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a broker reads its configuration, because somebody joins, nobody answers for JetStream."""
    look, away = provisioning._existing_streams, 3

    async def streams(js: JetStreamContext) -> dict[str, StreamConfig]:
        nonlocal away
        away -= 1
        if away >= 0:
            raise ServiceUnavailableError
        return await look(js)

    monkeypatch.setattr(provisioning, "_existing_streams", streams)
    with pytest.raises(MeshUnreachable, match="is not there for a moment"):
        await provision(connection, [])
    await provision_patiently(connection, [])
    assert away < 0
