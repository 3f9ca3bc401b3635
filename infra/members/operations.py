"""What the operator of a mesh does about its members: invite, limit, give a new key, revoke.

On the host of a broker, with the operator's key from its state folder. What is written is read by every
supervisor that runs a broker.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from infra.broker.keys import new_seed
from infra.host.credentials import Credentials
from infra.host.operator_connection import connect_operator
from schemas import subjects
from schemas.catalog import ACCESS, INVITES_KEPT_S, Role
from schemas.errors import ConfigurationError, InvalidRequest, MeshUnreachable
from schemas.joining import WORKING_SERVICES, Host, Invite
from schemas.tenants import Tenant, TenantLimits
from services.chassis.address import is_loopback
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.settings import MeshSection
from services.client.invite_line import InviteLine
from services.client.local_mesh import RunningMesh, running_mesh

LONGEST_S = INVITES_KEPT_S / 2


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

    # --- inviting -----------------------------------------------------------------------

    async def invite_host(self, name: str, ttl_s: float, *, all_services: bool = False) -> InviteLine:
        """A line that lets a host join. InvalidRequest if one of that name has."""
        known = (await self.hosts.get(subjects.host_key(name))).value
        if known is not None and known.revoked_at_s is None:
            raise InvalidRequest(
                f"a host {name} has joined already: `choir hosts revoke {name}` first, or take another name",
                field="name",
            )
        services = tuple(access.service for access in ACCESS) if all_services else WORKING_SERVICES
        return await self._invite(ttl_s, kind="host", name=name, services=services)

    async def invite_person(self, name: str, role: Role, ttl_s: float) -> InviteLine:
        """A line that lets a person, or an application, join as a tenant. InvalidRequest if there is one of
        that name."""
        known = (await self.tenants.get(subjects.tenant_key(name))).value
        if name == subjects.LOCAL_TENANT or (known is not None and known.is_valid(time.time())):
            raise InvalidRequest(
                f"there is a tenant {name} already: take another name, or `choir tenants rotate {name}` for "
                "a new key",
                field="name",
            )
        return await self._invite(ttl_s, kind="person", name=name, role=role)

    async def rotate(self, name: str, ttl_s: float, overlap_s: float) -> InviteLine:
        """A line that gives a tenant a new key; the old ones are good for `overlap_s` after that."""
        tenant = await self._tenant(name)
        return await self._invite(
            ttl_s, kind="person", name=name, role=tenant.role, rotates=True, overlap_s=overlap_s
        )

    async def _invite(self, ttl_s: float, **fields: object) -> InviteLine:
        if not 0 < ttl_s <= LONGEST_S:
            raise InvalidRequest(f"an invite is good for at most {LONGEST_S / 86_400:g} days", field="ttl")
        addresses = self._mesh.addresses
        if not addresses:
            raise ConfigurationError(
                "the broker listens on this host alone, so nobody else can join: stop the mesh, and start "
                "it with "
                "`choir up --listen 0.0.0.0` (or an address of this host)"
            )
        seed, public_key = new_seed()
        now_s = time.time()
        invite = Invite.model_validate(
            {"public_key": public_key, "created_at_s": now_s, "expires_at_s": now_s + ttl_s, **fields}
        )
        await self.invites.put(subjects.invite_key(public_key), invite)
        ca = b"" if self._mesh.ca is None else _der(Path(self._mesh.ca))
        return InviteLine(kind=invite.kind, name=invite.name, addresses=addresses, seed=seed, ca=ca)

    # --- what tenants and hosts may -----------------------------------------------------

    async def limit(
        self, name: str, limits: Callable[[TenantLimits], TenantLimits], weight: float | None
    ) -> Tenant:
        """A tenant with other limits."""

        def change(known: Tenant | None) -> Tenant:
            found = _there(name, known)
            more = {"limits": limits(found.limits), "weight": weight or found.weight}
            return found.model_copy(update=more)

        return await self.tenants.change(subjects.tenant_key(name), change)

    async def revoke_tenant(self, name: str) -> Tenant:
        """A tenant that is let in no more; its connections end."""

        def change(known: Tenant | None) -> Tenant:
            found = _there(name, known)
            return found if found.revoked_at_s else found.model_copy(update={"revoked_at_s": time.time()})

        return await self.tenants.change(subjects.tenant_key(name), change)

    async def revoke_host(self, name: str) -> Host:
        """A host that is let in no more, nor any of its processes; their connections end."""

        def change(known: Host | None) -> Host:
            if known is None:
                raise InvalidRequest(
                    f"no host {name} has joined: `choir hosts list` shows them", field="name"
                )
            return known if known.revoked_at_s else known.model_copy(update={"revoked_at_s": time.time()})

        return await self.hosts.change(subjects.host_key(name), change)

    async def _tenant(self, name: str) -> Tenant:
        return _there(name, (await self.tenants.get(subjects.tenant_key(name))).value)


def _there(name: str, known: Tenant | None) -> Tenant:
    if known is None:
        raise InvalidRequest(f"there is no tenant {name}: `choir tenants list` shows them", field="name")
    return known


def _der(path: Path) -> bytes:
    import ssl  # only where a line is made

    try:
        return ssl.PEM_cert_to_DER_cert(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is no certificate that can be read") from error


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
    url = mesh.url.partition(",")[0]  # of a cluster this host's own broker, which knows its key
    section = MeshSection(url=url, nkey=str(key), ca=mesh.ca, tls_first=mesh.tls_first)
    client = await connect_operator(url, section, _nothing)
    try:
        yield Operations(client, mesh)
    finally:
        await client.close()


def join_addresses(said: tuple[str, ...], found: tuple[str, ...], port: int) -> tuple[str, ...]:
    """Where others reach a broker, with its port: first what the settings say, then what was found here."""
    from services.chassis.address import host_and_port

    addresses = []
    for address in (*said, *(one for one in found if not is_loopback(one))):
        host, own_port = host_and_port(address)
        shown = f"[{host}]" if ":" in host else host
        addresses.append(f"{shown}:{own_port or port}")
    return tuple(dict.fromkeys(addresses))
