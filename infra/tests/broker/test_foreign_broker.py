"""A nats-server that somebody else runs, with what `choir broker config` prints in its configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from infra.broker.broker import FREE_PORTS
from infra.broker.local_cluster import LocalCluster
from infra.broker.provision import provision_at
from infra.broker.server.binary import server_binary
from infra.broker.watch.broker_problem import SERVICE
from infra.broker.watch.foreign_store import ForeignStore
from infra.host.children.processes import PREEXEC, terminate, until
from infra.host.credentials import Credentials
from infra.host.foreign_broker import configuration
from infra.host.supervisor import Supervisor
from infra.settings import HostSettings, load_host_settings
from infra.testing.plugin import connect, fill_disk
from infra.testing.switched_off import switched_off
from schemas import subjects
from schemas.errors import ConfigurationError
from schemas.nodes.lease import NodeLease

DEADLINE_S = 180.0
CONFIG = """
[broker]
embedded = false
[mesh]
url = "{url}"
nkey = "{nkey}"
[[agents]]
name = "singer"
backend = "instant"
models = [{{ name = "alpha", reply = "the giraffe" }}]
""" + switched_off("summarizer", "metrics", "gateway")
SERVER = """
server_name: {name}
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}/store", sync_interval: always,
    max_file_store: {room}, max_memory_store: 1GB }}
include choir.conf
"""
TOO_MANY_STORED = 5
CLUSTER = """
cluster {{ name: theirs, listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


@contextlib.asynccontextmanager
async def servers(folder: Path, choir: str, ports: list[int], room: str = "8GB") -> AsyncIterator[None]:
    """So many nats-servers as there are ports, one cluster if there are several."""
    started = []
    try:
        for port in ports:
            own = folder / f"server-{port}"
            own.mkdir(exist_ok=True)
            (own / "choir.conf").write_text(choir)
            text = SERVER.format(name=f"theirs-{port}", port=port, folder=own, room=room)
            if len(ports) > 1:
                routes = ", ".join(f'"nats-route://127.0.0.1:{each + 2000}"' for each in ports)
                text += CLUSTER.format(route=port + 2000, routes=routes)
            (own / "nats.conf").write_text(text)
            command = [str(server_binary()), "--config", str(own / "nats.conf")]
            with (own / "log").open("wb") as log:
                started.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=PREEXEC))
        for port in ports:
            log_path = folder / f"server-{port}" / "log"
            assert await until(lambda path=log_path: b"Server is ready" in path.read_bytes(), DEADLINE_S), (  # type: ignore[misc]
                log_path.read_text()
            )
        yield
    finally:
        for process in started:
            await terminate(process, 5)


def settings_for(folder: Path, url: str, state: Path) -> HostSettings:
    path = folder / "choir.toml"
    path.write_text(CONFIG.format(url=url, nkey=Credentials(state).operator))
    return load_host_settings(path)


@pytest.fixture
def ports(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[int]]:
    free = [broker.port for broker in LocalCluster(tmp_path / "unused").brokers]
    assert all(port in FREE_PORTS for port in free)
    yield free[: request.param]


@pytest.mark.parametrize(
    "ports",
    [pytest.param(1, id="one server"), pytest.param(3, id="a cluster of three", marks=pytest.mark.soak)],
    indirect=True,
)
async def test_choir_runs_on_it_as_on_its_own(tmp_path: Path, ports: list[int]) -> None:
    state = tmp_path / "state"
    url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    # Given servers that include what is printed for this host
    settings = settings_for(tmp_path, url, state)
    async with servers(tmp_path, configuration(settings, state), ports):
        supervisor = Supervisor(settings, state=state, forward=lambda *_: None)
        await supervisor.start()
        try:
            # Then whoever comes on loopback asks, and is answered
            client = await nats.connect(url.split(",")[-1], connect_timeout=DEADLINE_S)
            reply = await client.request(
                subjects.ASK, json.dumps({"prompt": "hi"}).encode(), timeout=DEADLINE_S
            )
            assert json.loads(reply.data)["text"] == "the giraffe"
            # and may do nothing else, as on our own
            with pytest.raises(nats.errors.Error):
                await client.jetstream(timeout=1).account_info()
            await client.close()
            # It is watched whether anything is stored
            first, own = url.split(",")[0], {"connect_timeout": DEADLINE_S}
            operator = await nats.connect(first, nkeys_seed=str(Credentials(state).operator), **own)
            stream = await operator.jetstream().stream_info(subjects.CANARY_STREAM)
            assert stream.state.last_seq > 0
            await operator.close()
            # A service comes by its own key, and may do no more there than its own work
            key = Credentials(state).of_instance("agent", "singer")
            agent = await nats.connect(first, nkeys_seed=str(key), inbox_prefix="_INBOX_agent.singer", **own)
            with pytest.raises(nats.errors.Error):
                await agent.jetstream(timeout=1).delete_stream(subjects.RESULTS_STREAM)
            await agent.close()
        finally:
            await supervisor.stop()


async def test_who_looks_is_told_that_a_foreign_server_stores_nothing(tmp_path: Path) -> None:
    (port,) = [broker.port for broker in LocalCluster(tmp_path / "unused").brokers][:1]
    url, said = f"nats://127.0.0.1:{port}", list[str]()
    # A server that has too little room for what a mesh needs is refused, with the way out
    async with servers(tmp_path, "", [port], room="100MB"):
        with pytest.raises(ConfigurationError, match="raise max_file_store"):
            await provision_at(url, ["alpha"])
    # Given a server that has stored what a mesh needs
    async with servers(tmp_path, "", [port]):
        client = await connect(url)
        await provision_at(url, ["alpha"])
        await client.jetstream().publish(subjects.CANARY, b"")
    watch = asyncio.create_task(ForeignStore(client, "cellar", said.append, interval_s=0.1).keep())
    try:
        # When it may store no more than it has, then its refusal is in a lease, and said once
        async with servers(tmp_path, "", [port], room="8"):
            await provision_at(url, ["alpha"])  # what was in memory, as a supervisor does
            lease = await leased(client, there=True)
            assert lease is not None and lease.problem is not None and lease.state == "broken"
            assert "insufficient" in lease.problem.message and "limits" in lease.problem.message
            assert "started again" in lease.problem.message
        # And when there is room, both go
        async with servers(tmp_path, "", [port]):
            await provision_at(url, ["alpha"])
            assert await until(lambda: "stores again" in said[-1], DEADLINE_S)
            assert await leased(client, there=False) is None
            assert [line for line in said if "stores nothing" in line]
    finally:
        watch.cancel()
        await client.close()


@pytest.mark.soak
async def test_who_looks_is_told_that_the_disk_of_a_foreign_server_is_full(
    tmp_path: Path, disk: Path
) -> None:
    (port,) = [broker.port for broker in LocalCluster(tmp_path / "unused").brokers][:1]
    url, said = f"nats://127.0.0.1:{port}", list[str]()
    async with servers(disk, "", [port]):
        client = await connect(url)
        await provision_at(url, ["alpha"])
        # Given a server that has stored something, and a disk that is full
        await client.jetstream().publish(subjects.CANARY, b"")
        filler = fill_disk(disk)
        watch = asyncio.create_task(ForeignStore(client, "cellar", said.append, interval_s=0.1).keep())
        try:
            # When something was to be stored a few times, then a lease says so, and what helps
            lease = await leased(client, there=True)
            assert lease is not None and lease.problem is not None
            assert "make room" in lease.problem.message and "started again" in lease.problem.message
            stored = (await client.jetstream().stream_info(subjects.CANARY_STREAM)).state.last_seq
            assert stored < TOO_MANY_STORED, "each of them needs room"
        finally:
            watch.cancel()
            await client.close()
            filler.unlink()


async def leased(client: Client, *, there: bool) -> NodeLease | None:
    """The lease of `cellar` once it is there, or once it is gone; what there is when the time is over."""
    lease = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    nodes = await client.jetstream(timeout=1).key_value(subjects.NODES_BUCKET)
                    try:
                        entry = await nodes.get(subjects.node_key(SERVICE, "cellar"))
                        lease = NodeLease.read(entry.value or b"")
                    except KeyNotFoundError:
                        lease = None
                    if (lease is not None) == there:
                        return lease
                await asyncio.sleep(0.05)
    return lease
