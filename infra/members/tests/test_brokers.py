"""Hosts of one cluster: the line of a broker, and three that are one mesh, each process by its own key."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.cluster import cluster_of
from infra.broker.local_cluster import free_ports
from infra.broker.tls.authority import Authority
from infra.host.credentials import Credentials
from infra.host.operator_connection import connect_operator
from infra.host.parts.instances import Instance, member_name
from infra.host.state import host_id
from infra.host.supervisor import Supervisor
from infra.members.brokers import (
    ClusterSecrets,
    cluster_secrets,
    leave_brokers,
    settings_of_broker_host,
    shared_by_brokers,
    take_secrets,
)
from infra.members.joining import join
from infra.members.members import Members
from infra.members.operations import operations
from infra.settings import HostSettings, load_host_settings
from infra.testing.mesh import settled
from schemas import subjects
from schemas.errors import ConfigurationError, MeshUnreachable
from schemas.nodes.joining import Host
from schemas.requests.tenants import LOCAL
from services.chassis.settings import MeshSection
from services.client.client import Choir
from services.client.finding.broker_section import BrokerSection

DEADLINE_S = 180.0
HOUR_S = 3600.0
THREE = ("192.0.2.1:4222", "192.0.2.2:4222", "192.0.2.3:4222")
OF_THREE = HostSettings(broker=BrokerSection(host="0.0.0.0", cluster=THREE))

CONFIG = """
[broker]
host = "127.0.0.1"
port = {port}
cluster = {cluster}
[broker.tls]
certificate = "{tls}/broker.pem"
key = "{tls}/broker.key"
ca = "{tls}/ca.pem"
[router]
replicas = {routers}
[aggregator]
replicas = 0
[summarizer]
replicas = 0
[metrics]
enabled = false
[gateway]
enabled = false
[modelstore]
enabled = false
[[agents]]
name = "{name}"
backend = "instant"
models = [{{ name = "of-{name}", reply = "{name} says so" }}]
"""
JOINED = """
[[agents]]
name = "{name}"
backend = "instant"
models = [{{ name = "of-{name}", reply = "{name} says so" }}]
[modelstore]
enabled = false
"""


# --- what they share --------------------------------------------------------------------------


def secrets_of(settings: HostSettings, state: Path) -> ClusterSecrets:
    return cluster_secrets(settings.broker, settings.mesh, state)


def test_what_the_brokers_share_makes_another_host_one_of_the_cluster(tmp_path: Path) -> None:
    # Given what one of the hosts shares, which is the same whenever it is asked for
    shared = secrets_of(OF_THREE, tmp_path / "one")
    assert secrets_of(OF_THREE, tmp_path / "one") == shared
    # When another host takes it, twice
    for _ in range(2):
        take_secrets(shared, tmp_path / "two")
    # Then it has the cluster, the secret of the routes, and the authority, without a word in choir.toml
    kept = [shared_by_brokers(tmp_path / name) for name in ("one", "two")]
    assert kept[0] is not None and kept[1] is not None
    settings = settings_of_broker_host(HostSettings(), kept[1])
    assert (settings.broker.cluster, settings.broker.host) == (THREE, "0.0.0.0")
    here = BrokerSection(host="192.0.2.2", cluster=THREE)
    clusters = [cluster_of(here, MeshSection(), each.secret) for each in kept if each is not None]
    assert clusters[0] == clusters[1] is not None
    authorities = [Authority(tmp_path / name / "tls") for name in ("one", "two")]
    assert authorities[0].shared() == authorities[1].shared()
    assert authorities[1].renew(["192.0.2.2"])
    for secret in ("cluster.json", "tls/ca.key"):
        assert (tmp_path / "two" / secret).stat().st_mode & 0o777 == 0o600
    # And leaves it again: nothing is left of the authority
    assert leave_brokers(tmp_path / "two") and not leave_brokers(tmp_path / "two")
    assert not list((tmp_path / "two" / "tls").iterdir())


def test_a_password_of_the_mesh_counts_as_the_secret(tmp_path: Path) -> None:
    with_password = OF_THREE.model_copy(update={"mesh": MeshSection(user="choir", password="a password")})
    shared = secrets_of(with_password, tmp_path)
    here = BrokerSection(host="192.0.2.2", cluster=THREE)
    assert cluster_of(here, MeshSection(), shared.secret) == cluster_of(here, with_password.mesh)


def test_what_does_not_fit_a_host_is_refused_with_the_way_out(tmp_path: Path) -> None:
    shared = secrets_of(OF_THREE, tmp_path / "one")
    with pytest.raises(ConfigurationError, match="there is no cluster"):
        secrets_of(HostSettings(), tmp_path / "alone")
    Authority(tmp_path / "other" / "tls").renew(["localhost"])
    with pytest.raises(ConfigurationError, match="an authority of another mesh"):
        take_secrets(shared, tmp_path / "other")
    assert shared_by_brokers(tmp_path / "other") is None
    with pytest.raises(ConfigurationError, match="are damaged"):
        take_secrets(shared.model_copy(update={"ca_key": "no key"}), tmp_path / "third")
    (tmp_path / "one" / "cluster.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="choir invite broker"):
        shared_by_brokers(tmp_path / "one")


def test_a_host_finds_itself_among_the_others_and_is_let_in_once(tmp_path: Path) -> None:
    credentials, instances = Credentials(tmp_path), (Instance("agent", "one", {}, ("llama",)),)
    own = credentials.host_with_broker(instances, "cellar-0a1b")
    local = LOCAL.model_copy(update={"public_keys": (credentials.local_key(OF_THREE),)})
    alone = credentials.accounts(OF_THREE, instances, Members())
    assert credentials.accounts(OF_THREE, instances, Members({"local": local}, {own.name: own})) == alone
    assert member_name(tmp_path).removesuffix(host_id(tmp_path))[-1] == "-"
    assert Host.model_validate(own.model_dump()) == own


# --- three hosts ------------------------------------------------------------------------------


@dataclass
class Three:
    """Three hosts of one cluster, and the authority of their certificates."""

    folder: Path
    hosts: list[Supervisor]
    said: list[str]

    def state(self, number: int) -> Path:
        return self.folder / f"state-{number}"

    def section(self, number: int, key: Path, inbox: str) -> tuple[str, MeshSection, str]:
        """How somebody with a key comes to one of the brokers."""
        url = self.hosts[number].url
        ca = str(self.folder / "tls" / "ca.pem")
        return url, MeshSection(url=url, nkey=str(key), ca=ca, tls_first=True), inbox


@pytest_asyncio.fixture
async def three(tmp_path: Path) -> AsyncIterator[Three]:
    """Each serves a model of its own; the first has the router. They have no password."""
    authority = Authority(tmp_path / "tls")
    authority.renew(["127.0.0.1"])
    ports = free_ports(3)
    cluster = json.dumps([f"127.0.0.1:{port}" for port in ports])
    running = Three(tmp_path, [], [])
    for number, port in enumerate(ports):
        config = tmp_path / f"choir-{number}.toml"
        config.write_text(
            CONFIG.format(
                port=port, cluster=cluster, tls=tmp_path / "tls", name=f"host-{number}",
                routers=1 if number == 0 else 0,
            )
        )  # fmt: skip
        settings = load_host_settings(config)
        if number == 0:
            shared = secrets_of(settings, running.state(0))
        else:
            take_secrets(shared, running.state(number))

        def forward(instance: str, said: str) -> None:
            running.said.append(f"{instance}: {said}")

        running.hosts.append(Supervisor(settings, state=running.state(number), forward=forward))
    try:
        await asyncio.gather(*(host.start() for host in running.hosts))
        yield running
    finally:
        for host in reversed(running.hosts):
            await host.stop()


async def let_in(who: tuple[str, MeshSection, str]) -> bool:
    """Whether a broker lets somebody in by a key: who is refused hears of the others, and tries these."""
    url, section, inbox = who
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                client = await connect_operator(url, section, _nothing, inbox=inbox)
                break
            except ConfigurationError:
                return False
            except MeshUnreachable:  # a broker that is busy answers later
                await asyncio.sleep(0.1)
    found = client.connected_url
    await client.close()
    return found is not None and url.endswith(found.netloc)


async def _nothing() -> None:
    """Nobody need be told."""


async def eventually_let_in(who: tuple[str, MeshSection, str], wanted: bool) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await let_in(who) != wanted:  # noqa: ASYNC110  (nobody signals it)
            await asyncio.sleep(0.1)


async def answered(choir: Choir, model: str) -> str:
    """What a model answers, when it can be asked."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(Exception):
                return (await choir.ask("who?", model=model, timeout_s=30)).text or ""
            await asyncio.sleep(0.2)


@pytest.mark.soak
async def test_in_a_cluster_each_process_has_a_key_of_its_own_which_every_broker_knows(three: Three) -> None:
    # Every broker lets the agents of all hosts in by their keys, and the supervisor of its own host alone
    for number, host in enumerate(three.hosts):
        for owner in range(3):
            credentials = Credentials(three.state(owner))
            agent = credentials.of_instance("agent", f"host-{owner}")
            inbox = subjects.service_inbox("agent", f"host-{owner}")
            await eventually_let_in(three.section(number, agent, inbox), True)
            operator = three.section(number, credentials.operator, "_INBOX_supervisor")
            assert await let_in(operator) == (owner == number), host.url
            # and each host's own people, as the tenant local
            local = three.section(number, credentials.of_tenant("local"), "_INBOX_local")
            await eventually_let_in(local, True)
    # An agent may do at another host's broker what it may do at home, and nothing else
    key = str(Credentials(three.state(2)).of_instance("agent", "host-2"))
    said: list[str] = []

    async def failed(error: Exception) -> None:
        said.append(str(error).lower())

    url, section, _ = three.section(0, Path(key), "")
    foreign: Client = await nats.connect(
        url,
        **{
            **section.credentials,
            "error_cb": failed,
            "inbox_prefix": b"_INBOX_agent.host-2",
            "connect_timeout": DEADLINE_S,
        },
    )
    leases = [subjects.node_key("agent", name) for name in ("host-1", "host-2")]
    other, own = (subjects.bucket_key(subjects.NODES_BUCKET, lease) for lease in leases)
    for subject in (other, own, "$JS.API.STREAM.DELETE.RESULTS"):
        await foreign.publish(subject, b"")
    await settled(foreign)
    refused = [one for one in (other, own, "$JS.API.STREAM.DELETE.RESULTS") if one.lower() in str(said)]
    assert refused == [other, "$JS.API.STREAM.DELETE.RESULTS"]
    await foreign.close()
    # All of it is one mesh, which a host and a person join by lines
    async with operations(three.state(1)) as mesh:
        hosts = await mesh.all_hosts()
        assert [(host.broker, len(host.instances)) for host in hosts].count((True, 1)) == 2
        attic = await join(
            await mesh.invite(kind="host", name="attic", ttl_s=HOUR_S), *_place(three, "attic")
        )
        alice = await join(
            await mesh.invite(kind="person", name="alice", role="ask", ttl_s=HOUR_S), *_place(three, "alice")
        )
    assert len(attic.url.split(",")) == len(alice.url.split(",")) == 3
    config = three.folder / "attic.toml"
    config.write_text(JOINED.format(name="attic"))
    joined = Supervisor(
        load_host_settings(config),
        state=_place(three, "attic")[0],
        forward=lambda instance, line: three.said.append(f"attic {instance}: {line}"),
    )
    await joined.start()
    try:
        async with Choir(alice.url, section=alice.section) as choir:
            for model in ("of-host-0", "of-host-1", "of-host-2", "of-attic"):
                assert await answered(choir, model) == f"{model.removeprefix('of-')} says so"
        # A broker that dies takes no other host's service with it
        assert three.hosts[1].broker is not None
        three.hosts[1].broker.kill()
        async with Choir(alice.url, section=alice.section) as choir:
            for model in ("of-host-2", "of-attic"):
                assert await answered(choir, model) == f"{model.removeprefix('of-')} says so"
    finally:
        await joined.stop()
    # And revocation reaches every broker
    async with operations(three.state(0)) as mesh:
        await mesh.revoke_tenant("alice")
        await mesh.revoke_host("attic")
    for number in (0, 2):
        await eventually_let_in(three.section(number, Path(alice.nkey), "_INBOX_alice"), False)
        gone = three.section(number, Path(attic.nkey), subjects.host_inbox("attic"))
        await eventually_let_in(gone, False)


def _place(three: Three, name: str) -> tuple[Path, Path]:
    home = three.folder / name
    return home / "state", home / "config"
