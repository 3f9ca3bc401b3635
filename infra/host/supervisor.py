"""Runs one host's part of the mesh: broker, streams, services, in order of readiness.

What dies is started again. Children never outlive the supervisor. `python -m infra.host.supervisor` is
`choir up` without the command line around it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import Client
from rich.console import Console

from infra.broker.access.guard import check_guarded
from infra.broker.broker import Broker
from infra.broker.broker_controller import BrokerController
from infra.broker.cluster import Cluster, cluster_of
from infra.broker.server.log import unverified
from infra.broker.streams.one_copy import OneCopy
from infra.broker.streams.worker_queues import WorkerQueues
from infra.broker.tls.certificates import BrokerCertificates, trust_of
from infra.broker.watch.broker_problem import SERVICE
from infra.broker.watch.foreign_store import ForeignStore
from infra.host.children.child import Child
from infra.host.children.forward import Forward, to_console
from infra.host.children.watchdog import HUNG_AFTER_S, Watchdog
from infra.host.credentials import Credentials
from infra.host.operator_connection import Provisioning, connect_operator, provision_patiently
from infra.host.parts.instances import member_name, planned, service_commands
from infra.host.parts.pipelines import place_when_possible, until_answers
from infra.host.running.background import Background
from infra.host.running.services import AGENT_DEADLINE_S, HostServices
from infra.host.seeding import seed_tenants
from infra.host.state import Claim, host_id, running_here
from infra.members.accounts_controller import AccountsController
from infra.members.brokers import publish_own_host, settings_of_broker_host, shared_by_brokers
from infra.members.desk import Desk
from infra.members.enrolment import enrol, settings_of_member
from infra.members.inviting import Whereabouts
from infra.members.members import Members
from infra.members.operations import join_addresses
from infra.settings import HostSettings, load_host_settings
from schemas import subjects
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable
from schemas.nodes.joining import Enrol
from schemas.subjects import LOCAL_TENANT
from services.chassis.identity import Identity
from services.chassis.nats.connecting.address import is_loopback, without_password
from services.chassis.nats.connection import clustered
from services.chassis.process.cancelling import check_cancelled
from services.chassis.registry.directory import Directory
from services.chassis.registry.ensembles import Ensembles
from services.chassis.settings import MeshSection
from services.chassis.telemetry.events import EventLog
from services.client.finding.local_mesh import RunningMesh, state_folder
from services.client.finding.membership import Membership, joined

PLACE_PATIENCE_S = 5.0
"""How long the start waits for pipelines to be placed; what needs other hosts' nodes is placed later."""


class Supervisor:
    """This host's part of the mesh.

    `state` is the state folder, by default the user's own. `forward` takes each line that a service
    writes; by default it goes to stderr. `problems` says what runs less well than it should; `broker` is the
    embedded broker, None if there is none.
    """

    def __init__(
        self, settings: HostSettings, *, state: Path | None = None, forward: Forward | None = None
    ) -> None:
        self._state = state or state_folder()
        self.member = None if "url" in settings.mesh.model_fields_set else joined(self._state)
        self._shared = shared_by_brokers(self._state) if self.member is None else None
        if self.member is None:
            self.settings = settings_of_broker_host(settings, self._shared)
        else:
            self.settings = settings_of_member(settings, self.member)
        self.broker: Broker | None = None
        self._credentials = Credentials(self._state)
        self._certificates = BrokerCertificates(self.settings, self._state)
        self._accounts: AccountsController | None = None
        self._forward = forward or to_console(Console(stderr=True))
        self._claim: Claim | None = None
        self._cluster: Cluster | None = None
        self._broker_controller: BrokerController | None = None
        self._client: Client | None = None
        self._events: EventLog | None = None
        self._directory: Directory | None = None
        self._services = HostServices(self._forward)
        self._background = Background(self._say)
        self._stop_asked = asyncio.Event()

    @property
    def url(self) -> str:
        """Where clients reach the mesh."""
        return self.settings.mesh.url if self.broker is None else self.broker.url

    @property
    def addresses(self) -> str:
        """All addresses of the mesh, with commas between them: those of a cluster with this host's first."""
        if self._cluster is None:
            return self.url
        return ",".join(self._cluster.urls(self.url.partition("://")[0]))

    @property
    def operator(self) -> MeshSection:
        """How to connect with every right: by the key of this host's own broker, else as `[mesh]` says."""
        if self.broker is None:
            return self.settings.mesh
        return MeshSection(url=self.url, nkey=str(self._credentials.operator), **self._trust)

    @property
    def _trust(self) -> dict[str, Any]:
        """What this host's own clients are told of the certificate of its broker."""
        if self.member is not None:
            return {"ca": self.member.ca, "tls_first": True}
        return trust_of(self._certificates.files)

    @property
    def _knows_keys(self) -> bool:
        """Whether every broker that the services of this host may go to knows their keys: its own and those
        of its cluster, or one that was told them (`choir broker config`), and lets the supervisor in by its
        key."""
        if self.broker is not None:
            return True
        nkey = self.settings.mesh.nkey
        return nkey is not None and Path(nkey).expanduser() == self._credentials.operator

    @property
    def children(self) -> tuple[Child, ...]:
        """The service processes of this host."""
        return self._services.children

    @property
    def problems(self) -> list[str]:
        """What runs less well than it should."""
        return self._services.problems

    async def start(self) -> None:
        """Return when the mesh answers. If it cannot, stop all that was started and say why (ChoirError)."""
        started_s = time.monotonic()
        try:
            self._claim = Claim(self._state)
            self._services.warm()
            for step in (self._start_broker, self._connect, self._start_services, self._place_pipelines):
                await step()
                check_cancelled()
            self._claim.publish(self._as_running())
        except BaseException:
            await self.stop()
            raise
        for problem in self.problems:
            self._say(problem)
        self._say(f"ready at {without_password(self.addresses)} after {time.monotonic() - started_s:.1f} s")

    async def run_until_stopped(self) -> None:
        """Wait for SIGINT, SIGTERM or `ask_to_stop`, then stop. A second signal kills what is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.ask_to_stop)
        try:
            await self._stop_asked.wait()
            await self.stop()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def ask_to_stop(self) -> None:
        """Stop cleanly; asked again, at once."""
        if self._stop_asked.is_set():
            self._services.kill()
        else:
            self._say("stopping")
            self._stop_asked.set()

    async def stop(self) -> None:
        """Services first, while they can still store what they finish; then the broker."""
        self._stop_asked.set()
        await self._background.stop()
        await self._services.stop()
        if self._client is not None:
            if self._events is not None:
                await self._events.close()
            await self._client.close()
        if self.broker is not None:
            await self.broker.stop()
        if self._claim is not None:
            self._claim.release()

    async def _start_broker(self) -> None:
        section = self.settings.broker
        if not section.embedded:
            return
        self._certificates.prepare()
        kept = None if self._shared is None else self._shared.secret
        self._cluster = cluster_of(section, self.settings.mesh, kept)
        self._accounts = AccountsController(self._state, self._block, self._reload, self._say)
        self.broker = Broker(
            self.settings.store_dir(self._state),
            host=section.host,
            port=section.port,
            max_payload=section.max_payload,
            tls=self._certificates.files,
            name=self._certificates.name,
            cluster=self._cluster,
            accounts=self._accounts.taken,
        )
        await self.broker.start()
        if self.settings.mesh.user is not None or not is_loopback(section.host):
            tls = None if self.broker.tls is None else unverified()
            await check_guarded(self.broker.reachable_host, self.broker.port, tls)
        self._broker_controller = BrokerController(
            self.broker, self._instance, section.min_free_bytes, self._say, alone=self._cluster is None
        )
        self._background.start(self._broker_controller.keep_alive(), "the broker")
        if self._certificates.files is not None:
            self._background.start(self._certificates.keep(self.broker.reload, self._say), "the certificate")

    def _block(self, members: Members) -> str:
        return self._credentials.accounts(self.settings, planned(self.settings, self._state), members)

    async def _reload(self, accounts: str, new: bool) -> None:
        assert self.broker is not None
        await self.broker.reload(accounts, new_account=new)

    async def _connect(self) -> None:
        if self.member is not None:
            await self._connect_as_member(self.member)
            return
        self._client = await connect_operator(self.url, self.operator, self._on_reconnect)
        self._provisioning = Provisioning(
            self._client, self.settings.models, self._say, self.settings.broker.replicas
        )
        if clustered(self._client):
            await self._provisioning.first_of_cluster(self._other_servers())
        else:
            await self._provisioning.first()
        await seed_tenants(self._client, self.settings.tenants)
        await self._let_members_in(self._client)
        own = member_name(self._state), self.settings.ensembles
        self.problems.extend(await Ensembles(self._client).declare_if_possible(*own))
        self._directory = Directory(self._client)
        await self._directory.start()
        let = None if self._accounts is None else self._accounts.let_workers
        self._worker_queues = WorkerQueues(
            self._client, self._served_models, self._say, let, self._models_on_demand
        )
        self._background.start(self._worker_queues.keep(), "the queues of workers")
        if clustered(self._client):
            self._background.start(OneCopy(self._client, self._say).keep(), "streams of one copy")
        if self._broker_controller is not None:
            self._background.start(self._broker_controller.keep_storing(self._client), "the broker's disk")
        else:
            watch = ForeignStore(self._client, self._instance, self._say)
            self._background.start(watch.keep(), "what the broker stores")

    @property
    def _instance(self) -> str:
        """Who complains of the broker."""
        return f"{socket.gethostname()}-{host_id(self._state)}-{SERVICE}"

    def _other_servers(self) -> str:
        """The brokers that are one with this host's, for whoever waits for them."""
        if self._cluster is None:
            return "the other hosts"
        return ", ".join(str(one) for one in self._cluster.servers if one != self._cluster.own)

    async def _let_members_in(self, client: Client) -> None:
        """Hosts and people who have joined, or will."""
        if self._accounts is None:
            return

        async def serve(models: tuple[str, ...]) -> None:
            await provision_patiently(client, models, self.settings.broker.replicas)

        await self._accounts.start(client)
        instances = planned(self.settings, self._state)
        if self._cluster is not None:
            own = self._credentials.host_with_broker(instances, member_name(self._state))
            await publish_own_host(self._accounts, own, self._credentials.local_key(self.settings))

        def where() -> Whereabouts:
            return Whereabouts.of(self._joined_at(), self._trust.get("ca"), self._servers())

        names = [instance.name for instance in instances]
        self._events = EventLog(client, Identity.of("supervisor", self._instance))
        await Desk(client, self._accounts, names, serve, where, self._events).start()
        self._background.start(self._accounts.keep(), "who may come in")

    async def _connect_as_member(self, member: Membership) -> None:
        """By this host's own key: its processes are let in when the mesh has been told of theirs."""

        async def ended() -> None:
            if not self._stop_asked.is_set():
                self._say(f"the mesh at {member.url} lets this host in no more: it was revoked")
                self.ask_to_stop()

        async def nothing() -> None:
            """The streams are looked after elsewhere."""

        inbox = subjects.host_inbox(member.name)
        self._client = await connect_operator(self.url, self.operator, nothing, inbox=inbox, on_refused=ended)
        instances = self._credentials.enrolled(planned(self.settings, self._state))
        said = Enrol(instances=instances, models=self.settings.models, ensembles=self.settings.ensembles)
        self.problems.extend(await enrol(self._client, member.name, said, self._say))
        self._directory = Directory(self._client)
        await self._directory.start()

    def _served_models(self) -> set[str]:
        """The names of all models that somebody serves now, or that this host would."""
        nodes = () if self._directory is None else self._directory.nodes
        return {model.name for lease in nodes for model in lease.models} | set(self.settings.models)

    def _models_on_demand(self) -> set[str]:
        """The names of all models that some agent would load."""
        nodes = () if self._directory is None else self._directory.nodes
        return {model.name for lease in nodes for model in lease.models if model.on_demand is not None}

    async def _on_reconnect(self) -> None:
        def done() -> None:
            self._worker_queues.again()
            if self._accounts is not None:
                self._accounts.again()

        self._background.start(self._provisioning.again(done), "streams")

    async def _start_services(self) -> None:
        by_key = self.member is not None or self._knows_keys
        key_of = self._credentials.of_instance if by_key else None
        commands = service_commands(self.settings, self.addresses, self._state, key_of, self._trust)
        assert self._directory is not None
        await self._services.start(commands, self._directory)
        assert self._client is not None
        client = self._client
        watchdog = Watchdog(self.children, self._directory, lambda: client.is_connected, HUNG_AFTER_S)
        self._background.start(watchdog.keep(), "the services")

    async def _place_pipelines(self) -> None:
        """Places them, and waits until those can be asked that are placed at once: whoever is told that the
        mesh is ready asks them next."""
        assert self._client is not None
        client = self._client
        placing = {
            self._background.start(
                place_when_possible(client, pipeline.spec, self._say), f"pipeline {pipeline.model}"
            ): pipeline.model
            for pipeline in self.settings.pipelines
        }
        if placing:
            placed, _ = await asyncio.wait(placing, timeout=PLACE_PATIENCE_S)
            asked = [placing[task] for task in placed if task.exception() is None]
            waits = (until_answers(client, model, AGENT_DEADLINE_S) for model in asked)
            self.problems.extend(problem for problem in await asyncio.gather(*waits) if problem is not None)

    def _as_running(self) -> RunningMesh:
        """What other commands on this host are told. Where strangers are not let in they come as `local`, by
        the key of that tenant."""
        local = self._credentials.of_tenant(LOCAL_TENANT)
        if self.broker is None:
            by_key = self._knows_keys and not is_loopback(
                urlsplit(self.settings.mesh.servers[0]).hostname or ""
            )
        else:
            by_key = self.broker.tls is not None and self.settings.mesh.user is None
        return running_here(
            self.addresses,
            config=self.settings.config,
            health=self._services.health_addresses(self.settings.health.host),
            nkey=str(local) if by_key else None,
            joined=self.member is not None,
            addresses=self._joined_at(),
            **self._trust,
        )

    def _joined_at(self) -> tuple[str, ...]:
        """Where other hosts reach the broker of this one; none if it is for this host alone."""
        if self.broker is None or self.broker.tls is None:
            return ()
        said, found = self.settings.broker.addresses, self._certificates.addresses
        return join_addresses(said, found, self.broker.port, self._servers())

    def _servers(self) -> tuple[str, ...]:
        """The addresses of all brokers of the cluster; none if this host's is alone."""
        return () if self._cluster is None else tuple(map(str, self._cluster.servers))

    def _say(self, line: str) -> None:
        self._forward("choir", line)


async def run_host(settings: HostSettings) -> None:
    """Start this host's part of the mesh, and run it until a signal comes."""
    supervisor = Supervisor(settings)
    await supervisor.start()
    try:
        await supervisor.run_until_stopped()
    except asyncio.CancelledError:  # Ctrl-C in the moment before it was listened for
        await supervisor.stop()


def main() -> None:
    """`python -m infra.host.supervisor`. Exit code 2: wrong settings; 3: no broker; 1: anything else."""
    try:
        asyncio.run(run_host(load_host_settings()))
    except ChoirError as error:
        Console(stderr=True).print(f"choir: {error.message}", markup=False, highlight=False, soft_wrap=True)
        codes: dict[Callable[..., ChoirError], int] = {ConfigurationError: 2, MeshUnreachable: 3}
        sys.exit(codes.get(type(error), 1))
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
