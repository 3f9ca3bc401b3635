"""The credentials of a mesh: one key for each instance, for each tenant, and for the supervisor itself.

They lie in the state folder and are made at the first start: `keys/` has those of the services, each of which
is told of its own alone; `tenants/` those that people and applications take.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from infra.broker.accounts import Insider, ServiceUser, accounts
from infra.broker.keys import KeyRing
from infra.broker.permissions import HOST, OPERATOR, Scope
from infra.host.instances import Instance
from infra.members.members import Members
from infra.settings import HostSettings
from schemas import catalog
from schemas.joining import HostedInstance
from schemas.subjects import LOCAL_TENANT
from schemas.tenants import LOCAL, Tenant
from services.chassis.address import is_loopback

KEYS_FOLDER = "keys"
TENANTS_FOLDER = "tenants"
ACCESS = {access.service: access for access in catalog.ACCESS}


class Credentials:
    """The keys in a state folder."""

    def __init__(self, state: Path) -> None:
        self._services = KeyRing(state / KEYS_FOLDER)
        self._tenants = KeyRing(state / TENANTS_FOLDER)

    @property
    def operator(self) -> Path:
        """The supervisor's own seed."""
        return self._services.path(OPERATOR)

    def of_instance(self, service: str, instance: str) -> Path:
        """The seed of one instance of a service."""
        return self._services.path(f"{service}-{instance}")

    def of_tenant(self, name: str) -> Path:
        """The seed that a tenant's clients take."""
        return self._tenants.path(name)

    @property
    def host(self) -> Path:
        """The seed by which this host's supervisor comes to a mesh that the host has joined."""
        return self._services.path(HOST)

    def public_key_of_host(self) -> str:
        """The public half of it; made if there is none."""
        return self._services.public_key(HOST)

    def enrolled(self, instances: Iterable[Instance]) -> tuple[HostedInstance, ...]:
        """What the mesh is told of the processes of this host; keys that are missing are made."""
        return tuple(
            HostedInstance(
                service=instance.service,
                name=instance.name,
                public_key=self._services.public_key(f"{instance.service}-{instance.name}"),
                models=instance.models,
            )
            for instance in instances
        )

    def accounts(
        self, settings: HostSettings, instances: Iterable[Instance], members: Members | None = None
    ) -> str:
        """The broker's accounts, with `members` besides who is of this host and its choir.toml; keys that are
        missing are made. ConfigurationError if they cannot be."""
        members, now_s = members or Members(), time.time()
        services = [
            ServiceUser(
                ACCESS[instance.service],
                Scope(instance.name, instance.models),
                self._services.public_key(f"{instance.service}-{instance.name}"),
            )
            for instance in instances
        ]
        mesh = settings.mesh
        insider = None if mesh.user is None else Insider(mesh.user, mesh.password or "")
        unguarded = settings.mesh.user is None
        open_to_all = unguarded and is_loopback(settings.broker.host) and settings.broker.tls is None
        local_key = self._tenants.public_key(LOCAL_TENANT) if unguarded and not open_to_all else None
        return accounts(
            self._services.public_key(OPERATOR),
            services,
            tenants_of(_known(settings, members), open_to_all, now_s, local_key),
            insider,
            anonymous=LOCAL_TENANT if open_to_all else None,
            hosts=members.hosts_at(now_s),
            invites=members.invites_at(now_s),
        )


def _known(settings: HostSettings, members: Members) -> Members:
    """All tenants: what the mesh has of one counts for more than what choir.toml says."""
    said = {tenant.name: tenant for tenant in settings.tenants}
    return Members(said | members.tenants, members.hosts, members.invites)


def tenants_of(
    members: Members, open_to_all: bool, now_s: float, local_key: str | None = None
) -> list[Tenant]:
    """Those who are let in now. `open_to_all`: whoever comes without credentials is the tenant `local`, else
    whoever shows `local_key`."""
    tenants = {tenant.name: tenant for tenant in members.tenants_at(now_s)}
    refused = LOCAL_TENANT not in tenants and LOCAL_TENANT in members.tenants
    if not refused and (open_to_all or local_key is not None):
        local = tenants.get(LOCAL_TENANT, LOCAL)
        keys = () if local_key is None else (local_key,)
        tenants[LOCAL_TENANT] = local.model_copy(update={"public_keys": (*local.public_keys, *keys)})
    return list(tenants.values())
