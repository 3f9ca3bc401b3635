"""The services of a host: started in order of readiness, watched, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from infra.host.children.child import EXIT_CONFIGURATION, Child, ServiceCommand
from infra.host.children.forked import ForkServer
from infra.host.children.forward import Forward
from infra.host.children.processes import until
from infra.host.healthy import ready_address
from infra.host.parts.instances import HEALTH_PORT_VARIABLE
from schemas.errors import ConfigurationError, InternalError
from schemas.nodes.lease import NodeLease
from services.chassis.process.stopping import STOP_LIMIT_S
from services.chassis.registry.directory import Directory

SERVICE_DEADLINE_S = 300.0
"""A host that others keep busy takes minutes for what takes seconds; whoever dies is not waited for."""
MOST_DEATHS = 5
"""A service that has died so often since the mesh was started does not become ready any more."""
AGENT_DEADLINE_S = 120.0
"""A large model is read from disk meanwhile; the mesh starts without an agent that takes longer."""
STOP_DEADLINE_S = STOP_LIMIT_S
SETTLED_STATES = ("ready", "broken")
OPTIONAL_SERVICES = ("agent", "shard_stage", "metrics", "gateway", "modelstore")
"""The mesh starts without those that are not ready."""


class HostServices:
    """The service processes of this host. `problems` says which of them cannot do what they should."""

    def __init__(self, forward: Forward) -> None:
        self.problems: list[str] = []
        self._forward = forward
        self._fork_server = ForkServer(lambda line: forward("choir", line))
        self._children: list[Child] = []

    @property
    def children(self) -> tuple[Child, ...]:
        """All of them."""
        return tuple(self._children)

    def warm(self) -> None:
        """Begins to import what they need."""
        self._fork_server.warm()

    async def start(self, commands: Sequence[ServiceCommand], directory: Directory) -> None:
        """Whoever works first, then the router, which lets requests in; returns when all have settled.

        Raises ConfigurationError and InternalError as `_settled` does.
        """
        for is_router in (False, True):
            started = [self._launch(one) for one in commands if (one.service == "router") is is_router]
            await asyncio.gather(*(self._settled(child, directory) for child in started))

    async def stop(self) -> None:
        """Each is told to stop, and killed if it does not."""
        stopping = (child.stop(STOP_DEADLINE_S) for child in self._children)
        await asyncio.gather(*stopping, self._fork_server.stop())  # each knows it before its start fails
        await self._fork_server.close()

    def kill(self) -> None:
        """All at once, whatever they are at."""
        for child in self._children:
            child.kill()

    def health_addresses(self, host: str) -> tuple[str, ...]:
        """Where they say whether they are ready; none if `[health] port` is 0."""
        ports = (child.command.env.get(HEALTH_PORT_VARIABLE) for child in self._children)
        return tuple(ready_address(host, int(port)) for port in ports if port)

    def _launch(self, command: ServiceCommand) -> Child:
        child = Child(command, self._forward, start_process=self._fork_server.start)
        self._children.append(child)
        child.start()
        return child

    async def _settled(self, child: Child, directory: Directory) -> None:
        """Until the instance has said in its lease that it is ready.

        One of OPTIONAL_SERVICES that is broken, dies or takes too long is a problem, and the mesh starts
        without it;
        settings that a service refuses, and any other service that is not ready, are errors.
        """
        optional = child.command.service in OPTIONAL_SERVICES

        def settled() -> bool:
            lease = _lease_of(child, directory)
            refused = child.last_exit == EXIT_CONFIGURATION
            return refused or child.exits >= (1 if optional else MOST_DEATHS) or lease is not None

        await until(settled, AGENT_DEADLINE_S if optional else SERVICE_DEADLINE_S)
        lease = _lease_of(child, directory)
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


def _lease_of(child: Child, directory: Directory) -> NodeLease | None:
    for lease in directory.nodes:
        if (lease.service, lease.instance, lease.pid) == (child.command.service, child.name, child.pid):
            return lease if lease.state in SETTLED_STATES else None
    return None
