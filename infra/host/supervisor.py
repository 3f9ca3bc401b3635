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
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from rich.console import Console

from infra.broker.broker import Broker, unverified
from infra.broker.broker_keeper import SERVICE, BrokerKeeper
from infra.broker.cluster import Cluster, cluster_of
from infra.broker.guard import check_guarded
from infra.broker.one_copy import OneCopy
from infra.broker.provision import TooFewServers, provision
from infra.broker.tls.certificates import BrokerCertificates
from infra.broker.worker_queues import WorkerQueues
from infra.host.child import EXIT_CONFIGURATION, Child, ServiceCommand
from infra.host.credentials import Credentials
from infra.host.forward import Forward, to_console
from infra.host.healthy import ready_address
from infra.host.instances import HEALTH_PORT_VARIABLE, planned, service_commands
from infra.host.operator_connection import Provisioning, connect_operator
from infra.host.pipelines import place_when_possible, until_answers
from infra.host.processes import until
from infra.host.seeding import seed_tenants
from infra.host.state import Claim, host_id, running_here
from infra.host.watchdog import HUNG_AFTER_S, Watchdog
from infra.members.accounts_keeper import AccountsKeeper
from infra.members.desk import Desk
from infra.members.enrolment import enrol, settings_of_member
from infra.members.members import Members
from infra.members.operations import join_addresses
from infra.settings import HostSettings, load_host_settings
from schemas import subjects
from schemas.errors import ChoirError, ConfigurationError, InternalError, MeshUnreachable
from schemas.nodes import NodeLease
from schemas.subjects import LOCAL_TENANT
from services.chassis.address import is_loopback, without_password
from services.chassis.cancelling import ended
from services.chassis.nats.election import clustered, passes
from services.chassis.registry.directory import Directory
from services.chassis.settings import MeshSection
from services.chassis.stopping import STOP_LIMIT_S
from services.client.local_mesh import RunningMesh, state_folder
from services.client.membership import Membership, joined

SERVICE_DEADLINE_S = 60.0
AGENT_DEADLINE_S = 120.0
"""Longer: a large model is read from disk before its agent is ready."""
STOP_DEADLINE_S = STOP_LIMIT_S
AGREE_DEADLINE_S = 600.0
"""The hosts of a cluster are started one after another, by people."""
AGREE_LOOK_S = 2.0
AGREE_PAUSE_S = 0.25
SETTLED_STATES = ("ready", "broken")
OPTIONAL_SERVICES = ("agent", "shard_stage", "metrics", "gateway")
"""The mesh starts without those that are not ready."""
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
        self.settings = settings if self.member is None else settings_of_member(settings, self.member)
        self.problems: list[str] = []
        self.broker: Broker | None = None
        self._credentials = Credentials(self._state)
        self._certificates = BrokerCertificates(self.settings, self._state)
        self._accounts: AccountsKeeper | None = None
        self._forward = forward or to_console(Console(stderr=True))
        self._claim: Claim | None = None
        self._cluster: Cluster | None = None
        self._keeper: BrokerKeeper | None = None
        self._client: Client | None = None
        self._directory: Directory | None = None
        self._children: list[Child] = []
        self._tasks: set[asyncio.Task[None]] = set()
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
        files = self._certificates.files
        if files is None:
            return {}
        return {"ca": None if files.ca is None else str(files.ca), "tls_first": True}

    @property
    def _knows_keys(self) -> bool:
        """Whether every broker that the services of this host may go to knows their keys: its own, or one
        that was told them (`choir broker config`), and lets the supervisor in by its key."""
        if self.broker is not None:
            return self._cluster is None
        nkey = self.settings.mesh.nkey
        return nkey is not None and Path(nkey).expanduser() == self._credentials.operator

    @property
    def children(self) -> tuple[Child, ...]:
        """The service processes of this host."""
        return tuple(self._children)

    async def start(self) -> None:
        """Return when the mesh answers. If it cannot, stop all that was started and say why (ChoirError)."""
        started_s = time.monotonic()
        try:
            self._claim = Claim(self._state)
            await self._start_broker()
            await self._connect()
            await self._start_services()
            self._watch_services()
            await self._place_pipelines()
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
            for child in self._children:
                child.kill()
        else:
            self._say("stopping")
            self._stop_asked.set()

    async def stop(self) -> None:
        """Services first, while they can still store what they finish; then the broker."""
        self._stop_asked.set()
        await ended(self._tasks)
        await asyncio.gather(*(child.stop(STOP_DEADLINE_S) for child in self._children))
        if self._client is not None:
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
        self._cluster = cluster_of(section, self.settings.mesh)
        self._accounts = AccountsKeeper(self._state, self._block, self._reload, self._say)
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
        instance = f"{socket.gethostname()}-{host_id(self._state)}-{SERVICE}"
        self._keeper = BrokerKeeper(
            self.broker, instance, section.min_free_bytes, self._say, alone=self._cluster is None
        )
        self._in_background(self._keeper.keep_alive(), "the broker")
        if self._certificates.files is not None:
            self._in_background(self._certificates.keep(self.broker.reload, self._say), "the certificate")

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
            await self._provision_cluster(self._client, self._provisioning)
        else:
            await self._provisioning.first()
        await seed_tenants(self._client, self.settings.tenants)
        await self._let_members_in(self._client)
        self._directory = Directory(self._client)
        await self._directory.start()
        self._worker_queues = WorkerQueues(self._client, self._served_models, self._say)
        self._in_background(self._worker_queues.keep(), "the queues of workers")
        if clustered(self._client):
            self._in_background(OneCopy(self._client, self._say).keep(), "streams of one copy")
        if self._keeper is not None:
            self._in_background(self._keeper.keep_storing(self._client), "the broker's disk")

    async def _provision_cluster(self, client: Client, provisioning: Provisioning) -> None:
        """When so many servers are there and have chosen a leader as it takes: hosts start one after another.

        Raises MeshUnreachable, which names the servers, and ConfigurationError.
        """
        js = client.jetstream(timeout=AGREE_LOOK_S)
        others = "the other hosts"
        if self._cluster is not None:
            others = ", ".join(str(one) for one in self._cluster.servers if one != self._cluster.own)
        try:
            async with asyncio.timeout(AGREE_DEADLINE_S):
                for attempt in count():
                    try:
                        await js.account_info()
                        await provisioning.first()
                        return
                    except (TooFewServers, MeshUnreachable):
                        pass
                    except nats.errors.Error as error:
                        if not passes(error):
                            raise
                    if attempt == 1:
                        self._say(f"waits for the other brokers of the cluster: {others}")
                    await asyncio.sleep(AGREE_PAUSE_S)
        except TimeoutError as error:
            raise MeshUnreachable(
                f"the brokers of the cluster have not agreed within {AGREE_DEADLINE_S:.0f} s: all of "
                f"them have to be there at the first start. Run `choir up` on {others} too, with the same "
                "[broker] cluster, the same [mesh] password, and certificates of the same authority"
            ) from error

    async def _let_members_in(self, client: Client) -> None:
        """Hosts and people who have joined, or will."""
        if self._accounts is None:
            return

        async def serve(models: tuple[str, ...]) -> None:
            await provision(client, models, self.settings.broker.replicas)

        await self._accounts.start(client)
        names = [instance.name for instance in planned(self.settings, self._state)]
        await Desk(client, self._accounts, names, serve).start()
        self._in_background(self._accounts.keep(), "who may come in")

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
        await enrol(self._client, member.name, instances, self.settings.models, self._say)
        self._directory = Directory(self._client)
        await self._directory.start()

    def _served_models(self) -> set[str]:
        """The names of all models that somebody serves now, or that this host would."""
        nodes = () if self._directory is None else self._directory.nodes
        return {model.name for lease in nodes for model in lease.models} | set(self.settings.models)

    async def _on_reconnect(self) -> None:
        def done() -> None:
            self._worker_queues.again()
            if self._accounts is not None:
                self._accounts.again()

        self._in_background(self._provisioning.again(done), "streams")

    async def _start_services(self) -> None:
        """Whoever works first, then the router, which lets requests in.

        In a cluster they may have to go to another host's broker, which does not know their keys: there they
        come with the user and password that all hosts share.
        """
        by_key = self.member is not None or self._knows_keys
        key_of = self._credentials.of_instance if by_key else None
        commands = service_commands(self.settings, self.addresses, self._state, key_of, self._trust)
        workers = [self._launch(command) for command in commands if command.service != "router"]
        await asyncio.gather(*(self._settled(child) for child in workers))
        routers = [self._launch(command) for command in commands if command.service == "router"]
        await asyncio.gather(*(self._settled(child) for child in routers))

    def _watch_services(self) -> None:
        assert self._client is not None and self._directory is not None
        client = self._client
        watchdog = Watchdog(self._children, self._directory, lambda: client.is_connected, HUNG_AFTER_S)
        self._in_background(watchdog.keep(), "the services")

    async def _place_pipelines(self) -> None:
        """Places them, and waits until those can be asked that are placed at once: whoever is told that the
        mesh is ready asks them next."""
        assert self._client is not None
        client = self._client
        placing = {
            self._in_background(
                place_when_possible(client, pipeline.wish, self._say), f"pipeline {pipeline.model}"
            ): pipeline.model
            for pipeline in self.settings.pipelines
        }
        if placing:
            placed, _ = await asyncio.wait(placing, timeout=PLACE_PATIENCE_S)
            asked = [placing[task] for task in placed if task.exception() is None]
            waits = (until_answers(client, model, AGENT_DEADLINE_S) for model in asked)
            self.problems += [problem for problem in await asyncio.gather(*waits) if problem is not None]

    def _launch(self, command: ServiceCommand) -> Child:
        child = Child(command, self._forward)
        self._children.append(child)
        child.start()
        return child

    async def _settled(self, child: Child) -> None:
        """Until the instance has said in its lease that it is ready.

        One of OPTIONAL_SERVICES that is broken, dies or takes too long is a problem, and the mesh starts
        without it;
        settings that a service refuses, and any other service that is not ready, are errors.
        """
        optional = child.command.service in OPTIONAL_SERVICES

        def settled() -> bool:
            lease = self._lease_of(child)
            refused = child.last_exit == EXIT_CONFIGURATION
            return refused or (optional and child.exits > 0) or lease is not None

        await until(settled, AGENT_DEADLINE_S if optional else SERVICE_DEADLINE_S)
        lease = self._lease_of(child)
        if lease is not None:
            self.problems += (
                f"{child.name}: model {model.name} cannot be asked: {model.problem.message}"
                for model in lease.models
                if model.problem is not None
            )
            if lease.state == "broken" and lease.problem is not None:
                self.problems.append(f"{child.name}: {lease.problem.message}")
            return
        last_words = "\n".join(child.lines) or "(it wrote nothing)"
        if child.last_exit == EXIT_CONFIGURATION:
            raise ConfigurationError(f"{child.name} cannot run with its settings:\n{last_words}")
        if not optional:
            raise InternalError(f"{child.name} is not ready; it last wrote:\n{last_words}")
        self.problems.append(f"{child.name} is not ready; the mesh starts without it")

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
            health=self._health_addresses(),
            nkey=str(local) if by_key else None,
            joined=self.member is not None,
            addresses=self._joined_at(),
            **self._trust,
        )

    def _joined_at(self) -> tuple[str, ...]:
        """Where other hosts reach the broker of this one; none if it is for this host alone."""
        if self.broker is None or self.broker.tls is None:
            return ()
        return join_addresses(self.settings.broker.addresses, self._certificates.addresses, self.broker.port)

    def _health_addresses(self) -> tuple[str, ...]:
        """Where the processes of this host say whether they are ready; none if `[health] port` is 0."""
        ports = (child.command.env.get(HEALTH_PORT_VARIABLE) for child in self._children)
        return tuple(ready_address(self.settings.health.host, int(port)) for port in ports if port)

    def _lease_of(self, child: Child) -> NodeLease | None:
        assert self._directory is not None
        for lease in self._directory.nodes:
            if (lease.service, lease.instance, lease.pid) == (child.command.service, child.name, child.pid):
                return lease if lease.state in SETTLED_STATES else None
        return None

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._is_done)
        return task

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._say(f"{task.get_name()} is looked after no more: {type(error).__name__}: {error}")

    def _say(self, line: str) -> None:
        self._forward("choir", line)


async def run_host(settings: HostSettings) -> None:
    """Start this host's part of the mesh, and run it until a signal comes."""
    supervisor = Supervisor(settings)
    await supervisor.start()
    await supervisor.run_until_stopped()


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
