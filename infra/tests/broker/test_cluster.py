"""Three real brokers that are one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamInfo

from infra.broker.broker import Broker
from infra.broker.cluster import cluster_of, own_server
from infra.broker.local_cluster import LocalCluster, connect
from infra.broker.provision import provision
from infra.broker.streams.one_copy import OneCopy
from schemas import subjects
from schemas.broker import catalog
from schemas.errors import ConfigurationError, MeshUnreachable
from schemas.events import RequestCancelled
from services.chassis.identity import Identity
from services.chassis.nats import pull
from services.chassis.nats.pull import PullSubscription
from services.chassis.nats.streams import Storage
from services.chassis.settings import MeshSection
from services.chassis.telemetry.events import EventLog
from services.client.finding.broker_section import BrokerSection, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 180.0
SERVERS = ("one:4222", "two:4222", "three:4222")
REPLICATED = [spec.name for spec in catalog.STREAMS if spec.replicated]
ONE_COPY = [spec.name for spec in catalog.STREAMS if not spec.replicated]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    """Provisioned, and every broker there again that a test has killed."""
    await asyncio.gather(*(broker.start() for broker in cluster.brokers))
    nc = await connect(cluster.url)
    await eventually(lambda: provision(nc, ["alpha"]))
    for name in REPLICATED:
        await eventually(lambda name=name: all_current(nc, name))  # type: ignore[misc]
    yield nc
    await nc.close()


async def eventually(look: Callable[[], Awaitable[object]]) -> None:
    """Returns when `look` neither fails nor says False."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                if await look() is not False:
                    return
            except (nats.errors.Error, ConfigurationError, MeshUnreachable):
                pass
            await asyncio.sleep(0.05)


async def all_current(nc: Client, stream: str) -> bool:
    info = await nc.jetstream(timeout=1).stream_info(stream)
    assert info.cluster is not None
    return bool(info.cluster.leader) and all(one.current for one in info.cluster.replicas or ())


async def copies(nc: Client, stream: str) -> int:
    info: StreamInfo = await nc.jetstream().stream_info(stream)
    assert info.cluster is not None
    return 1 + len(info.cluster.replicas or ())


async def test_what_has_to_survive_is_kept_by_three_and_the_rest_by_one(client: Client) -> None:
    assert {name: await copies(client, name) for name in (*REPLICATED, *ONE_COPY)} == {
        **dict.fromkeys(REPLICATED, 3),
        **dict.fromkeys(ONE_COPY, 1),
    }
    buckets = [subjects.bucket_stream(spec.name) for spec in catalog.BUCKETS]
    assert [await copies(client, name) for name in buckets] == [3] * len(buckets)


@pytest.mark.soak
async def test_copies_are_lowered_and_raised_under_traffic_and_nothing_is_lost(client: Client) -> None:
    stored: list[str] = []
    done = asyncio.Event()

    async def publish() -> None:
        storage = Storage(client)
        while not done.is_set():
            subject = subjects.answer(f"raised-{len(stored)}", 0, "alpha")
            assert await storage.store_once(subject, b"kept")
            stored.append(subject)

    publishing = asyncio.create_task(publish())
    try:
        for wanted in (1, 3, 1):
            before = len(stored)
            await eventually(lambda wanted=wanted: provision(client, ["alpha"], wanted))  # type: ignore[misc]
            await eventually(
                lambda wanted=wanted: is_true(copies(client, subjects.ANSWERS_STREAM), wanted)  # type: ignore[misc]
            )
            await eventually(lambda: all_current(client, subjects.ANSWERS_STREAM))
            await eventually(lambda before=before: is_later(stored, before + 20))  # type: ignore[misc]
    finally:
        done.set()
        await publishing
    info = await client.jetstream().stream_info(subjects.ANSWERS_STREAM, subjects_filter="choir.answer.>")
    kept = info.state.subjects or {}
    assert set(stored) <= set(kept)
    assert set(kept.values()) == {1}


async def is_true(value: Awaitable[int], wanted: int) -> bool:
    return await value == wanted


async def is_later(stored: list[str], count: int) -> bool:
    return len(stored) >= count


async def test_what_was_acknowledged_is_read_at_once(client: Client) -> None:
    storage = Storage(client)
    for number in range(300):
        subject = subjects.result(f"current-{number}")
        assert await storage.store_once(subject, b"there")
        stored = await storage.last(subjects.RESULTS_STREAM, subject)
        assert stored is not None and (stored.subject, stored.data) == (subject, b"there"), number


async def test_a_leader_that_dies_costs_a_wait_and_no_message(cluster: LocalCluster, client: Client) -> None:
    leader = cluster.leader(await client.jetstream().stream_info(subjects.RESULTS_STREAM))
    storage, stored = Storage(client), []
    for number in range(60):
        if number == 20:
            leader.kill()
        subject = subjects.result(f"elected-{number}")
        stored.append((subject, await storage.store_once(subject, str(number).encode())))
    for number, (subject, _first) in enumerate(stored):
        found = await storage.last(subjects.RESULTS_STREAM, subject)
        assert found is not None and found.data == str(number).encode()


async def test_an_election_loses_no_event(cluster: LocalCluster, client: Client) -> None:
    leader = cluster.leader(await client.jetstream().stream_info(subjects.EVENTS_STREAM))
    nc = await connect(next(broker.url for broker in cluster.brokers if broker is not leader))
    events = EventLog(nc, Identity("router", "one"))
    before = (await client.jetstream().stream_info(subjects.EVENTS_STREAM)).state.messages
    for number in range(400):
        events.publish(RequestCancelled, request_id=f"told-{number}")
        if number % 10 == 0:
            await events.flush()
        if number == 100:
            leader.kill()
    await events.close()

    async def all_are_there() -> bool:
        info = await client.jetstream(timeout=1).stream_info(subjects.EVENTS_STREAM)
        return info.state.messages >= before + 400

    await eventually(all_are_there)
    assert (await client.jetstream().stream_info(subjects.EVENTS_STREAM)).state.messages == before + 400
    assert events.dropped == 0
    await nc.close()


async def test_a_queue_whose_leader_dies_is_asked_again(
    cluster: LocalCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who waits for work, and whose demand does not run out meanwhile
    monkeypatch.setattr(pull, "EXPIRES_S", 20 * DEADLINE_S)
    consumer = subjects.generate_consumer("interactive", "alpha")
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    waiting = PullSubscription(client, subjects.COMMANDS_STREAM, consumer, arrived.put)
    await waiting.pull(8)
    info = await client.jetstream().consumer_info(subjects.COMMANDS_STREAM, consumer)
    assert info.cluster is not None and info.cluster.leader
    # When the server that leads the queue dies, and others are asked for work later
    cluster.named(info.cluster.leader).kill()
    await Storage(client).enqueue(
        subjects.generate("interactive", "alpha", "asked-again"), b"work", "asked-again"
    )
    # Then it comes all the same
    async with asyncio.timeout(DEADLINE_S):
        while arrived.empty():
            waiting.reset_if_overdue()
            if not waiting.in_flight:
                await waiting.pull(8)
            await asyncio.sleep(0.1)
    message = await arrived.get()
    assert message.data == b"work"
    await message.ack_sync()
    waiting.cancel()
    await waiting.drained()


async def test_a_stream_of_one_copy_is_made_anew_when_its_server_is_gone(
    cluster: LocalCluster, client: Client
) -> None:
    info = await client.jetstream().stream_info(subjects.TOKENS_STREAM)
    cluster.leader(info).kill()
    again = OneCopy(client, lambda _line: None, gone_after_s=0.5, patience_s=0.5)
    await eventually(lambda: again.look())

    async def takes_messages() -> bool:
        ack = await client.jetstream(timeout=2).publish(subjects.token("r1", "alpha"), b"text")
        return ack.stream == subjects.TOKENS_STREAM

    await eventually(takes_messages)


async def test_a_store_of_a_broker_that_was_alone_is_not_thrown_away(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with Broker(tmp_path) as alone:
        nc = await connect(alone.url)
        await provision(nc, [])
        await nc.close()
    section = BrokerSection(port=4222, cluster=("127.0.0.1:4222", "127.0.0.1:4223", "127.0.0.1:4224"))
    of_three = cluster_of(section, MeshSection(user="choir", password="secret"))
    with pytest.raises(ConfigurationError, match=r"made by a broker that was alone(.*)choir backup"):
        await Broker(tmp_path, port=4222, cluster=of_three).start()
    async with Broker(tmp_path) as alone:  # and it can still be read
        nc = await connect(alone.url)
        names = {info.config.name for info in await nc.jetstream().streams_info()}
        assert {spec.name for spec in catalog.STREAMS if spec.storage == "file"} <= names
        await nc.close()


async def test_this_host_is_found_by_its_address() -> None:
    servers = [Server("one", 4222), Server("two", 4222), Server("three", 4222)]
    assert own_server(servers, "0.0.0.0", 4222, lambda host: host == "two") == servers[1]
    assert own_server(servers, "three", 4222, lambda _host: True) == servers[2]


@pytest.mark.parametrize(
    ("is_here", "said"), [(lambda _host: False, "none of them is"), (lambda _host: True, "more than one")]
)
async def test_a_list_that_does_not_name_this_host_once_is_refused(
    is_here: Callable[[str], bool], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        own_server([Server("one", 4222), Server("two", 4222)], "0.0.0.0", 4222, is_here)


async def test_a_cluster_whose_servers_share_no_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="type `choir invite broker` on one of the hosts"):
        cluster_of(BrokerSection(cluster=SERVERS), MeshSection())


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        (SERVERS[:2], "three, or five"),
        (("one", *SERVERS[1:]), "HOST:PORT"),
        (("one:4222",) * 3, "there are 1"),
    ],
)
async def test_a_cluster_that_cannot_be_one_is_refused(servers: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BrokerSection(cluster=servers)
