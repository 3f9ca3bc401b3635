"""The members of a mesh, as the buckets of tenants, hosts and invites have them now: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from schemas.message import Message, Name
from schemas.nodes.joining import Host, Invite
from schemas.requests.tenants import Tenant

REFUSED_PATIENCE_S = 24 * 3600.0
"""So long after its end an invite may still be shown: whoever comes with it is told why it is refused."""
WORKER_PATIENCE_S = 3600.0
"""So long after the last worker of a model was removed its agents may acknowledge what they had in work: no
request takes longer."""


class KeptMembers(Message):
    """The members as a file of the state folder has them: for the next start, before the buckets are read."""

    tenants: tuple[Tenant, ...] = ()
    hosts: tuple[Host, ...] = ()
    invites: tuple[Invite, ...] = ()
    worker_models: tuple[Name, ...] = ()


@dataclass
class Members:
    """All that is known, by name or by public key. `worker_models` are those that workers are registered for;
    those that were are in `former_models`, with the time until which they count."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    invites: dict[str, Invite] = field(default_factory=dict)
    worker_models: frozenset[str] = frozenset()
    former_models: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: KeptMembers) -> Members:
        """What a file had kept."""
        return cls(
            {one.name: one for one in kept.tenants},
            {one.name: one for one in kept.hosts},
            {one.public_key: one for one in kept.invites},
            frozenset(kept.worker_models),
        )

    @property
    def kept(self) -> KeptMembers:
        """What a file is to keep."""
        return KeptMembers(
            tenants=tuple(self.tenants.values()),
            hosts=tuple(self.hosts.values()),
            invites=tuple(self.invites.values()),
            worker_models=tuple(sorted(self.worker_models)),
        )

    def register(self, models: Collection[str], now_s: float) -> None:
        """From now on workers are registered for these models, and for no others."""
        gone = self.worker_models.difference(models)
        self.worker_models = frozenset(models)
        self.former_models |= dict.fromkeys(gone, now_s + WORKER_PATIENCE_S)

    def worker_models_at(self, now_s: float) -> tuple[str, ...]:
        """The models whose work agents that take workers may take."""
        former = {model for model, end_s in self.former_models.items() if now_s < end_s}
        return tuple(sorted(self.worker_models | former))

    def tenants_at(self, now_s: float) -> list[Tenant]:
        """Those who are let in, with the keys that are good."""
        return [
            tenant.model_copy(update={"public_keys": self.keys_of(tenant, now_s)})
            for _, tenant in sorted(self.tenants.items())
            if tenant.is_valid(now_s)
        ]

    def keys_of(self, tenant: Tenant, now_s: float) -> tuple[str, ...]:
        """A tenant's keys without those that another one has replaced."""
        retired = {
            key
            for invite in self.invites.values()
            if invite.rotates and invite.name == tenant.name and is_over(invite, now_s)
            for key in invite.retires
        }
        return tuple(key for key in tenant.public_keys if key not in retired)

    def hosts_at(self, _now_s: float) -> list[Host]:
        """Those who are let in."""
        return [host for _, host in sorted(self.hosts.items()) if host.revoked_at_s is None]

    def invites_at(self, now_s: float) -> list[str]:
        """The public keys that may be shown, for good or to hear why not."""
        return sorted(
            key
            for key, invite in self.invites.items()
            if now_s < (invite.used_at_s or invite.expires_at_s) + REFUSED_PATIENCE_S
        )


def is_over(invite: Invite, now_s: float) -> bool:
    """Whether the keys that an invite replaces are good no more."""
    return invite.used_at_s is not None and now_s >= invite.used_at_s + invite.overlap_s


def keys_in_use(hosts: Iterable[Host], tenants: Iterable[Tenant]) -> dict[str, str]:
    """Each public key that stands for somebody, and for whom: nobody else may come with it."""
    found = {key: f"the tenant {tenant.name}" for tenant in tenants for key in tenant.public_keys}
    for host in hosts:
        found[host.public_key] = f"the host {host.name}"
        found |= {
            instance.public_key: f"{instance.name} of the host {host.name}" for instance in host.instances
        }
    return found
