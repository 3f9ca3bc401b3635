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
        open_to_all = is_loopback(settings.broker.host) and settings.mesh.user is None
        return accounts(
            self._services.public_key(OPERATOR),
            services,
            tenants_of(settings, open_to_all, time.time()),
            insider,
            anonymous=LOCAL_TENANT if open_to_all else None,
        )


def tenants_of(settings: HostSettings, open_to_all: bool, now_s: float) -> list[Tenant]:
    """Those who are let in now. `open_to_all`: whoever comes without credentials is the tenant `local`."""
    tenants = [tenant for tenant in settings.tenants if tenant.is_valid(now_s)]
    if open_to_all and LOCAL_TENANT not in {tenant.name for tenant in settings.tenants}:
        tenants.append(LOCAL)
    return tenants
