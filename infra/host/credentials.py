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
from infra.broker.permissions import OPERATOR, Scope
from infra.host.instances import Instance
from infra.settings import HostSettings
from schemas import catalog
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

    def accounts(self, settings: HostSettings, instances: Iterable[Instance]) -> str:
        """The broker's accounts; keys that are missing are made. ConfigurationError if they cannot be."""
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
            tenants_of(settings, open_to_all, time.time(), local_key),
            insider,
            anonymous=LOCAL_TENANT if open_to_all else None,
        )


def tenants_of(
    settings: HostSettings, open_to_all: bool, now_s: float, local_key: str | None = None
) -> list[Tenant]:
    """Those who are let in now. `open_to_all`: whoever comes without credentials is the tenant `local`, else
    whoever shows `local_key`."""
    tenants = {tenant.name: tenant for tenant in settings.tenants if tenant.is_valid(now_s)}
    refused = LOCAL_TENANT not in tenants and any(each.name == LOCAL_TENANT for each in settings.tenants)
    if not refused and (open_to_all or local_key is not None):
        local = tenants.get(LOCAL_TENANT, LOCAL)
        keys = () if local_key is None else (local_key,)
        tenants[LOCAL_TENANT] = local.model_copy(update={"public_keys": (*local.public_keys, *keys)})
    return list(tenants.values())
