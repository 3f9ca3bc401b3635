"""The credentials of a mesh: one key for each instance, for each tenant, and for the supervisor itself.

They lie in the state folder and are made at the first start: `keys/` has those of the services, each of which
is told of its own alone; `tenants/` those that people and applications take.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from infra.broker.access.accounts import Insider, ServiceUser, accounts
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import HOST, OPERATOR, scope_of
from infra.host.parts.instances import Instance
from infra.members.members import Members
from infra.settings import HostSettings
from schemas.broker import catalog
from schemas.nodes.joining import Host, HostedInstance
from schemas.requests.tenants import LOCAL, Tenant
from schemas.subjects import LOCAL_TENANT
from services.chassis.nats.connecting.address import is_loopback

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

    def public_key_of_operator(self) -> str:
        """The public half of it; made if there is none."""
        return self._services.public_key(OPERATOR)

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

    def enrolled(self, instances: Iterable[Instance]) -> tuple[HostedInstance, ...]:
        """What the mesh is told of the processes of this host; keys that are missing are made."""
        return tuple(
            HostedInstance(
                service=instance.service,
                name=instance.name,
                public_key=self._services.public_key(f"{instance.service}-{instance.name}"),
                models=instance.models,
                takes_workers=instance.takes_workers,
                keyless=instance.keyless,
            )
            for instance in instances
        )

    def host_with_broker(self, instances: Iterable[Instance], name: str) -> Host:
        """This host, for the other brokers of its cluster."""
        return Host(
            name=name,
            public_key=self.public_key_of_operator(),
            services=tuple(ACCESS),
            instances=self.enrolled(instances),
            created_at_s=time.time(),
            broker=True,
        )

    def local_key(self, settings: HostSettings) -> str | None:
        """The key of this host's own clients, who are the tenant `local`; made if there is none. None where
        they need none, or have user and password."""
        if settings.mesh.user is not None or _is_open(settings):
            return None
        return self._tenants.public_key(LOCAL_TENANT)

    def accounts(
        self, settings: HostSettings, instances: Iterable[Instance], members: Members | None = None
    ) -> str:
        """The broker's accounts, with `members` besides who is of this host and its choir.toml; keys that are
        missing are made. Without members nobody tells the broker of registered workers either: an agent may
        take the work of any. ConfigurationError if they cannot be."""
        now_s = time.time()
        worker_models = None if members is None else members.worker_models_at(now_s)
        members = members or Members()
        services = [
            ServiceUser(
                ACCESS[instance.service],
                scope_of(
                    instance.name,
                    instance.models,
                    instance.takes_workers,
                    worker_models,
                    keyless=instance.keyless,
                ),
                self._services.public_key(f"{instance.service}-{instance.name}"),
            )
            for instance in instances
        ]
        mesh = settings.mesh
        insider = None if mesh.user is None else Insider(mesh.user, mesh.password or "")
        open_to_all = _is_open(settings)
        return accounts(
            self.public_key_of_operator(),
            services,
            tenants_of(_known(settings, members), open_to_all, now_s, self.local_key(settings)),
            insider,
            anonymous=LOCAL_TENANT if open_to_all else None,
            hosts=members.hosts_at(now_s),
            invites=members.invites_at(now_s),
            worker_models=worker_models,
        )


def _is_open(settings: HostSettings) -> bool:
    """Whether whoever comes without credentials is let in."""
    on_loopback = is_loopback(settings.broker.host) and settings.broker.tls is None
    return settings.mesh.user is None and on_loopback


def _known(settings: HostSettings, members: Members) -> Members:
    """All tenants: what the mesh has of one counts for more than what choir.toml says."""
    said = {tenant.name: tenant for tenant in settings.tenants}
    return replace(members, tenants=said | members.tenants)


def tenants_of(
    members: Members, open_to_all: bool, now_s: float, local_key: str | None = None
) -> list[Tenant]:
    """Those who are let in now. `open_to_all`: whoever comes without credentials is the tenant `local`, else
    whoever shows `local_key`."""
    tenants = {tenant.name: tenant for tenant in members.tenants_at(now_s)}
    refused = LOCAL_TENANT not in tenants and LOCAL_TENANT in members.tenants
    if not refused and (open_to_all or local_key is not None):
        local = tenants.get(LOCAL_TENANT, LOCAL)
        keys = () if local_key is None or local_key in local.public_keys else (local_key,)
        tenants[LOCAL_TENANT] = local.model_copy(update={"public_keys": (*local.public_keys, *keys)})
    return list(tenants.values())
