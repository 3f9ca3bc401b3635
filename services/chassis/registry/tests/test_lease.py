"""A lease says how an instance is, again and again, and goes when the instance goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KV_OP

from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.testing.mesh import eventually
from infra.testing.plugin import connect
from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.errors import ErrorBody
from schemas.nodes.lease import NodeLease, ServedModel
from services.chassis.identity import Identity
from services.chassis.registry import directory as directory_module
from services.chassis.registry import lease as lease_module
from services.chassis.registry.directory import SILENCE_S, Directory
from services.chassis.registry.lease import RENEW_INTERVAL_S, Lease, Load
from services.chassis.registry.lease_size import fitting

ALPHA = ServedModel(name="alpha", backend="instant", slots=2)
BROKEN = ServedModel.model_validate(
    {"name": "beta", "backend": "instant", "slots": 0, "problem": {"code": "model_unusable", "message": "no"}}
)


async def kept(client: Client, instance: str) -> NodeLease | None:
    bucket = await client.jetstream().key_value(subjects.NODES_BUCKET)
    try:
        entry = await bucket.get(subjects.node_key("agent", instance))
    except KeyNotFoundError:
        return None
    return NodeLease.model_validate_json(entry.value) if entry.value else None


@pytest.fixture
async def directory(connection: Client) -> AsyncIterator[Directory]:
    known = Directory(connection)
    await known.start()
    yield known


def instances(directory: Directory) -> list[str]:
    return [lease.instance for lease in directory.nodes]


async def test_a_lease_says_who_it_is_what_it_serves_and_how_the_machine_is(connection: Client) -> None:
    identity = Identity("agent", "agent-1")
    lease = Lease(connection, identity, lambda: Load(slots=2, busy=1, models=(ALPHA,)))
    await lease.start()
    said = await kept(connection, "agent-1")
    await lease.stop()

    assert said is not None
    assert (said.service, said.instance, said.pid, said.host) == (
        "agent",
        "agent-1",
        identity.pid,
        identity.host,
    )
    assert (said.state, said.slots, said.busy, said.models) == ("ready", 2, 1, (ALPHA,))
    assert said.memory_used_bytes > 0
    assert said.host_memory_free_bytes > 0


async def test_a_lease_that_is_given_back_is_gone_at_once(connection: Client, directory: Directory) -> None:
    lease = Lease(connection, Identity("agent", "agent-1"), Load)
    await lease.start()
    await eventually(lambda: instances(directory) == ["agent-1"])
    told = await connection.subscribe(subjects.bucket_updates(subjects.NODES_BUCKET))
    await lease.stop()
    while KV_OP not in ((await told.next_msg(60)).headers or {}):
        pass  # renewals; what runs out by itself has no such header
    await eventually(lambda: not instances(directory))
    assert await kept(connection, "agent-1") is None


async def test_a_change_is_told_at_once_when_it_matters(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_INTERVAL_S", 3600)
    busy = 0
    lease = Lease(connection, Identity("agent", "agent-1"), lambda: Load(busy=busy))
    await lease.start()
    busy = 3
    lease.renew_soon()

    async def told() -> bool:
        said = await kept(connection, "agent-1")
        return said is not None and said.busy == 3

    await eventually(told)
    await lease.stop()


async def test_a_lease_is_renewed_again_and_again(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_INTERVAL_S", 0.02)
    lease = Lease(connection, Identity("agent", "agent-1"), Load)
    heard = await connection.subscribe(subjects.bucket_updates(subjects.NODES_BUCKET))
    await lease.start()
    seen = [NodeLease.model_validate_json((await heard.next_msg(60)).data).seen_at_s for _ in range(4)]
    await lease.stop()
    assert seen == sorted(set(seen))
    assert RENEW_INTERVAL_S * 3 < LEASE_TTL_S  # a renewal or two may be lost


async def test_who_does_not_renew_is_gone_when_its_time_is_over(
    connection: Client, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(connection, Identity("agent", "agent-1"), Load)
    await lease._put()  # once, and then it dies
    await eventually(lambda: instances(directory) == ["agent-1"])
    monkeypatch.setattr(directory_module, "LEASE_TTL_S", 0.2)
    await eventually(lambda: not instances(directory))
    assert await kept(connection, "agent-1") is not None  # the broker keeps it for longer than this


async def test_who_comes_late_knows_the_leases_that_are_there_already(
    mesh_url: str, connection: Client
) -> None:
    leases = [
        Lease(connection, Identity("agent", f"agent-{i}"), lambda: Load(models=(ALPHA,))) for i in (2, 1)
    ]
    leases.append(Lease(connection, Identity("router", "router-1"), Load))
    for lease in leases:
        await lease.start()
    late = await connect(mesh_url)
    directory = Directory(late)
    await directory.start()
    assert instances(directory) == ["agent-1", "agent-2", "router-1"]
    assert [node.instance for node in directory.of("agent")] == ["agent-1", "agent-2"]
    assert [node.instance for node in directory.of("router")] == ["router-1"]
    assert [node.instance for node, _ in directory.serving()["alpha"]] == ["agent-1", "agent-2"]
    for lease in leases:
        await lease.stop()
    await late.close()


async def test_only_what_can_be_asked_counts_as_served(connection: Client, directory: Directory) -> None:
    loads = {
        "ready": Load(models=(ALPHA, BROKEN)),
        "broken": Load(state="broken", models=(ALPHA,)),
        "draining": Load(state="draining", models=(ALPHA,)),
    }
    leases = [Lease(connection, Identity("agent", name), partial(loads.__getitem__, name)) for name in loads]
    for lease in leases:
        await lease.start()
    await eventually(lambda: len(directory.nodes) == 3)
    assert {
        model: [node.instance for node, _ in serving] for model, serving in directory.serving().items()
    } == {"alpha": ["ready"]}
    for lease in leases:
        await lease.stop()


async def test_a_lease_that_nobody_can_read_is_passed_over(connection: Client, directory: Directory) -> None:
    bucket = await connection.jetstream().key_value(subjects.NODES_BUCKET)
    await bucket.put(subjects.node_key("agent", "odd"), b"not a lease")
    lease = Lease(connection, Identity("agent", "agent-1"), Load)
    await lease.start()
    await eventually(lambda: instances(directory) == ["agent-1"])
    await lease.stop()


async def test_a_renewal_that_fails_is_not_the_end(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_INTERVAL_S", 0.02)
    lease = Lease(connection, Identity("agent", "agent-1"), Load)
    await lease.start()
    js = connection.jetstream()
    config = (await js.stream_info(subjects.bucket_stream(subjects.NODES_BUCKET))).config
    await js.delete_stream(config.name or "")
    await js.add_stream(config)
    await eventually(lambda: kept(connection, "agent-1"))
    await lease.stop()


def models(count: int, **fields: Any) -> tuple[ServedModel, ...]:
    return tuple(ServedModel(name=f"m{i}", backend="instant", slots=1, **fields) for i in range(count))


async def test_a_lease_that_the_broker_does_not_carry_says_less_and_that_it_does(
    connection: Client, directory: Directory
) -> None:
    """It is said again with every word when there is room."""
    said = models(400, description="long " * 1000)
    lease = Lease(connection, Identity("agent", "agent-1"), lambda: Load(models=said))
    await lease.start()
    await eventually(lambda: instances(directory) == ["agent-1"])
    (node,) = directory.nodes
    assert [model.name for model in node.models] == [f"m{i}" for i in range(400)]
    assert node.problem is not None and node.problem.code == "payload_too_large"
    said = models(1, description="long " * 1000)
    lease.renew_soon()
    await eventually(lambda: directory.nodes and directory.nodes[0].problem is None)
    assert directory.nodes[0].models == said
    await lease.stop()


@pytest.mark.parametrize("limit_bytes", [100_000, 20_000, 5_000, 1_000])
def test_a_lease_fits_whatever_there_is_in_it_and_keeps_the_models_that_can_be_asked(
    limit_bytes: int,
) -> None:
    lost = ErrorBody(code="model_unusable", message="it is " * 1000)
    whole = NodeLease(
        service="agent",
        instance="agent-1",
        host="here",
        pid=1,
        version="1",
        state="ready",
        started_at_s=1,
        seen_at_s=2,
        models=(*models(40, problem=lost), *models(100, description="long " * 100)),
    )
    cut = fitting(whole, limit_bytes)
    assert len(cut.to_bytes()) <= limit_bytes
    assert cut.problem is not None
    usable = [model for model in cut.models if model.problem is None]
    assert len(usable) == 100 or len(cut.models) == len(usable)
    assert fitting(whole, 10_000_000) is whole


async def test_what_a_broker_has_forgotten_is_believed_until_it_would_have_run_out(
    connection: Client, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases are in its memory: after a restart there are none, and yet everybody is there."""
    await Lease(connection, Identity(service="agent", instance="alice"), Load)._put()
    await eventually(lambda: instances(directory) == ["alice"])
    await connection.jetstream().purge_stream(subjects.bucket_stream(subjects.NODES_BUCKET))
    await directory.reload()
    assert instances(directory) == ["alice"]
    monkeypatch.setattr(directory_module, "LEASE_TTL_S", 0.0)
    assert instances(directory) == []


class SteppedClock:
    """Goes on when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


async def test_nobody_runs_out_while_nobody_at_all_is_heard(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SteppedClock()
    monkeypatch.setattr(directory_module, "time", clock)
    directory = Directory(connection)
    await directory.start()
    alice, bob = (Lease(connection, Identity("agent", name), Load) for name in ("alice", "bob"))

    async def heard_from_alice() -> None:
        before = directory.nodes[0].seen_at_s
        await alice._put()
        await eventually(lambda: directory.nodes[0].seen_at_s > before)

    # Given two instances of which nothing is heard for longer than a lease lasts
    await alice._put()
    await bob._put()
    await eventually(lambda: instances(directory) == ["alice", "bob"])
    clock.now_s += 2 * LEASE_TTL_S
    assert instances(directory) == ["alice", "bob"]
    # When one is heard again, then the other has time for a renewal, and no more than that
    await heard_from_alice()
    clock.now_s += 0.4 * SILENCE_S
    await heard_from_alice()
    assert instances(directory) == ["alice", "bob"]
    clock.now_s += 0.7 * SILENCE_S
    assert instances(directory) == ["alice"]


@pytest.mark.soak
async def test_a_broker_that_stood_still_for_longer_than_a_lease_hides_nobody(tmp_path: Path) -> None:
    """In its store all leases have run out by then, and it says so before anybody can renew one."""
    async with Broker(tmp_path) as broker:
        client, other = await connect(broker.url), await connect(broker.url)
        await provision(client, ["alpha"])
        directory = Directory(client)
        await directory.start()
        alive, dead = (Lease(other, Identity("agent", name), Load) for name in ("alive", "dead"))
        await alive.start()
        await dead._put()
        await eventually(lambda: instances(directory) == ["alive", "dead"])
        broker.pause()
        await asyncio.sleep(LEASE_TTL_S + 2)
        broker.resume()
        end_s = asyncio.get_running_loop().time() + LEASE_TTL_S
        while asyncio.get_running_loop().time() < end_s:
            assert "alive" in instances(directory)
            await asyncio.sleep(0.02)
        await eventually(lambda: instances(directory) == ["alive"])
        await alive.stop()
        await client.close()
        await other.close()
