"""A broker that was alone becomes one of three: its streams go by a backup."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client

from infra.broker.backup.backup import back_up, operator_section
from infra.broker.backup.into_cluster import broker_of_cluster
from infra.broker.backup.restore import beside, restore
from infra.broker.backup.tests.test_backup import Mesh
from infra.broker.local_cluster import free_ports
from infra.broker.provision import provision
from infra.host.credentials import Credentials
from infra.members.brokers import cluster_secrets, shared_by_brokers, take_secrets
from infra.settings import HostSettings
from schemas import subjects
from schemas.errors import ConfigurationError
from services.client.finding.broker_section import BrokerSection
from services.client.finding.local_mesh import RunningMesh

DEADLINE_S = 180.0


async def test_only_a_host_of_a_cluster_runs_its_broker_beside_a_restore(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="choir invite broker"):
        async with beside(HostSettings(), tmp_path):
            pass


def test_whoever_backs_up_over_tls_knows_what_proves_the_broker(tmp_path: Path) -> None:
    Credentials(tmp_path).public_key_of_operator()
    url, ca = "tls://one:4222,tls://two:4222", str(tmp_path / "ca.pem")
    running = RunningMesh(url=url, pid=1, process_started_at_s=0.0, ca=ca, tls_first=True)
    section = operator_section(running, HostSettings(), tmp_path)
    assert (section.url, section.ca, section.tls_first) == ("tls://one:4222", ca, True)


async def kept(client: Client) -> dict[str, tuple[int, int]]:
    """The streams that answer: the number of the last message of each, and how many servers keep it."""
    try:
        infos = await client.jetstream(timeout=10).streams_info()
    except nats.errors.Error:
        return {}
    return {str(one.config.name): (one.state.last_seq, one.config.num_replicas or 0) for one in infos}


@pytest.mark.soak
async def test_what_a_broker_held_alone_is_kept_by_the_cluster_that_is_made_of_its_backup(
    tmp_path: Path,
) -> None:
    # Given a backup of a broker that is alone
    backup, mesh = tmp_path / "backup", Mesh(tmp_path / "alone")
    async with mesh.broker:
        await mesh.fill()
        manifest = await back_up(mesh.running, HostSettings(), mesh.state, backup)
    # and three hosts of a new cluster
    ports = free_ports(3)
    cluster = tuple(f"127.0.0.1:{port}" for port in ports)
    sections = [BrokerSection(host="127.0.0.1", port=port, cluster=cluster) for port in ports]
    hosts = [(HostSettings(broker=one), tmp_path / f"state-{one.port}") for one in sections]
    settings, state = hosts[0]
    shared = cluster_secrets(settings.broker, settings.mesh, state)
    for _, state in hosts[1:]:
        take_secrets(shared, state)
    # When one of them restores, and the others stand by
    async with contextlib.AsyncExitStack() as others:
        for settings, state in hosts[1:]:
            await others.enter_async_context(beside(settings, state))
        assert await restore(*hosts[0], backup) == manifest
    # Then the two others have all of it, without the first
    async with contextlib.AsyncExitStack() as running:
        opened = (
            running.enter_async_context(broker_of_cluster(settings, shared_by_brokers(state), state))
            for settings, state in hosts[1:]
        )
        client, _ = await asyncio.gather(*opened)
        wanted = {entry.name: (entry.last_sequence, 3) for entry in manifest.streams}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while await kept(client) != wanted:  # noqa: ASYNC110  (nobody signals it)
                    await asyncio.sleep(0.2)
        assert await kept(client) == wanted
        js = client.jetstream(timeout=DEADLINE_S)
        stored = await js.get_last_msg(subjects.RESULTS_STREAM, subjects.result("r1"))
        worker = await (await js.key_value(subjects.WORKERS_BUCKET)).get("mac")
        assert (stored.data, worker.value) == (b"the giraffe", b"a worker")
    # And the cluster is what the catalog wants
    async with contextlib.AsyncExitStack() as running:
        opened = (
            running.enter_async_context(broker_of_cluster(settings, shared_by_brokers(state), state))
            for settings, state in hosts
        )
        client, *_ = await asyncio.gather(*opened)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(Exception):
                    await provision(client, ["alpha"])
                    break
                await asyncio.sleep(0.2)
    # Nothing is overwritten
    with pytest.raises(ConfigurationError, match="overwrites nothing"):
        await restore(*hosts[0], backup)
