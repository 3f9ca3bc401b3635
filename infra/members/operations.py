"""What the operator of a mesh does about its members: invite, limit, give a new key, revoke.

On the host of a broker, with the operator's key from its state folder. What is written is read by every
supervisor that runs a broker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from infra.host.credentials import Credentials
from infra.host.operator_connection import connect_operator, operator_of
from infra.members.inviting import Inviting, Whereabouts
from infra.members.tenancy import limited, revoked, revoked_host
from schemas import subjects
from schemas.errors import ConfigurationError, MeshUnreachable
from schemas.nodes.joining import Host, Invite, MakeInvite
from schemas.requests.tenants import Tenant, TenantLimits
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.connecting.address import is_loopback
from services.chassis.registry.ensembles import Ensembles
from services.client.finding.invite_line import InviteLine
from services.client.finding.inviting import new_seed
from services.client.finding.local_mesh import RunningMesh, running_mesh
from services.client.request_builder import build


async def _nothing() -> None:
    """Nobody need be told of a reconnection."""


class Operations:
    """The buckets of members, for one who may change them."""

    def __init__(self, client: Client, mesh: RunningMesh) -> None:
        self._client = client
        self._mesh = mesh
        self.tenants = Bucket(client, subjects.TENANTS_BUCKET, messages(Tenant))
        self.hosts = Bucket(client, subjects.HOSTS_BUCKET, messages(Host))
        self.invites = Bucket(client, subjects.INVITES_BUCKET, messages(Invite))
        self._inviting = Inviting(self.tenants, self.hosts, self.invites)

    async def all_tenants(self) -> tuple[Tenant, ...]:
        """Every tenant, also those who are let in no more."""
        found: list[Tenant] = []
        reader = Bucket(
            self._client, subjects.TENANTS_BUCKET, messages(Tenant), lambda _key, value: found.append(value)
        )
        await reader.reload()
        return tuple(sorted(found, key=lambda tenant: tenant.name))

    async def all_hosts(self) -> tuple[Host, ...]:
        """Every host that has joined, also those who are let in no more."""
        found: list[Host] = []
        reader = Bucket(
            self._client, subjects.HOSTS_BUCKET, messages(Host), lambda _key, value: found.append(value)
        )
        await reader.reload()
        return tuple(sorted(found, key=lambda host: host.name))

    async def invite(self, **fields: object) -> InviteLine:
        """A line that lets a host or a person join, or gives a tenant a new key; `fields` are fields of
        MakeInvite but the key. InvalidRequest names what is wrong."""
        where, (seed, public_key) = Whereabouts.of(self._mesh.addresses, self._mesh.ca), new_seed()
        request = build(MakeInvite, {"public_key": public_key, **fields})
        return where.line(await self._inviting.make(request), seed)

    # --- what tenants and hosts may -----------------------------------------------------

    async def limit(
        self, name: str, limits: Callable[[TenantLimits], TenantLimits], weight: float | None
    ) -> Tenant:
        """A tenant with other limits."""
        return await limited(self.tenants, name, limits, weight)

    async def revoke_tenant(self, name: str) -> Tenant:
        """A tenant that is let in no more; its connections end."""
        return await revoked(self.tenants, name)

    async def revoke_host(self, name: str) -> Host:
        """A host that is let in no more, nor any of its processes; their connections end. What its choir.toml
        said of ensembles counts no more."""
        host = await revoked_host(self.hosts, name)
        await Ensembles(self._client).declare(name, ())
        return host


def runs_broker(state: Path) -> bool:
    """Whether the mesh that runs here has its broker here, with the operator's key beside it."""
    mesh = running_mesh(state)
    return mesh is not None and not mesh.joined and Credentials(state).operator.is_file()


@asynccontextmanager
async def operations(state: Path) -> AsyncIterator[Operations]:
    """For the mesh whose broker runs on this host. MeshUnreachable, or ConfigurationError if it is
    elsewhere."""
    mesh = running_mesh(state)
    if mesh is None:
        raise MeshUnreachable(
            "no mesh runs on this host: this is done where the broker is, beside `choir up`"
        )
    key = Credentials(state).operator
    if mesh.joined or not key.is_file():
        raise ConfigurationError(f"the broker at {mesh.url} runs on another host: this is done there")
    section = operator_of(mesh, key)
    client = await connect_operator(section.url, section, _nothing)
    try:
        yield Operations(client, mesh)
    finally:
        await client.close()


def join_addresses(
    said: tuple[str, ...], found: tuple[str, ...], port: int, servers: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Where others reach a broker, with its port: first what the settings say, then what was found here, then
    the other `servers` of its cluster."""
    from services.chassis.nats.connecting.address import host_and_port

    addresses = []
    for address in (*said, *(one for one in found if not is_loopback(one))):
        host, own_port = host_and_port(address)
        shown = f"[{host}]" if ":" in host else host
        addresses.append(f"{shown}:{own_port or port}")
    return tuple(dict.fromkeys((*addresses, *servers)))
