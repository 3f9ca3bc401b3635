"""Joining a mesh: invites, hosts, and what whoever joins says and is told.

An invite is a key that opens one thing, once: to say another key, which is made where it is used. Secrets
never travel: what is stored and sent are public halves.
"""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.broker.catalog import Role
from schemas.ensembles.named import MAX_ENSEMBLES, Ensemble
from schemas.message import Act, Message, Name, Struct, field_error, is_none
from schemas.requests.tenants import PublicKey, TenantName

MAX_INSTANCES = 256
MAX_MODELS = 1_000
WORKING_SERVICES = ("agent", "shard_stage", "modelstore")
"""What a host that joins runs, unless its invite says more."""

HostName = TenantName
InviteKind = Literal["host", "person"]


class Invite(Message):
    """An entry of the bucket of invites, under `public_key`, the half of the key that the invite's line
    holds.

    A host is to be called `name`, a person is the tenant `name` with `role`. With `rotates` the tenant is
    there already, and its keys of then are taken away `overlap_s` after the new one has come. Once it is
    used, `used_by` is the key that came.
    """

    public_key: PublicKey
    kind: InviteKind
    name: TenantName
    role: Role = "ask"
    services: tuple[str, ...] = WORKING_SERVICES
    created_at_s: float
    expires_at_s: float
    rotates: Annotated[bool, Field(exclude_if=not_)] = False
    overlap_s: float = 0.0
    used_by: PublicKey | None = Field(default=None, exclude_if=is_none)
    used_at_s: float | None = Field(default=None, exclude_if=is_none)
    retires: tuple[PublicKey, ...] = ()


class HostedInstance(Struct):
    """A process of a host that has joined: its service, its name, and the key by which it connects.

    `models` are those that it serves, and whose work it takes. One that `takes_workers` takes that of
    registered workers' models too; null is what an earlier Choir says of such a one. A `keyless` one is a
    gateway that wants no keys.
    """

    service: Name
    name: Name
    public_key: PublicKey
    models: tuple[Name, ...] | None = None
    takes_workers: Annotated[bool, Field(exclude_if=not_)] = False
    keyless: Annotated[bool, Field(exclude_if=not_)] = False


class Host(Message):
    """An entry of the bucket of hosts: one that has joined, and the processes that it has told of.

    It may run `services`, and no others. From `revoked_at_s` on nobody of it is let in. One with a `broker`
    runs one of a cluster: its supervisor comes to that one alone, and tells the others what runs there.
    """

    name: HostName
    public_key: PublicKey
    services: tuple[str, ...] = WORKING_SERVICES
    instances: Annotated[tuple[HostedInstance, ...], Field(max_length=MAX_INSTANCES)] = ()
    created_at_s: float
    revoked_at_s: float | None = Field(default=None, exclude_if=is_none)
    broker: Annotated[bool, Field(exclude_if=not_)] = False


class MakeInvite(Message):
    """An operator asks for an invite; `public_key` is the half of a key that the asker has made for its line.

    A person is invited with `role`; a host to run what works with models, with `all_services` all else too.
    With `rotates` the person is there: the new key replaces the old ones `overlap_s` after it has come.
    """

    kind: InviteKind
    name: TenantName
    public_key: PublicKey
    ttl_s: Annotated[float, Field(gt=0)]
    role: Role = "ask"
    all_services: Annotated[bool, Field(exclude_if=not_)] = False
    rotates: Annotated[bool, Field(exclude_if=not_)] = False
    overlap_s: Annotated[float, Field(ge=0, exclude_if=not_)] = 0.0

    def act(self) -> Act | None:
        """As the base class says."""
        return Act(f"invite {self.kind}", self.name)


class InviteMade(Message):
    """The invite is there. With `addresses`, and `ca`, the certificate of the mesh's authority (PEM; null
    where the system knows it), the asker makes the line: the secret in it never travels."""

    expires_at_s: float
    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    ca: str | None = None


class ManageHosts(Message):
    """An operator lists the hosts that have joined, or lets one in no more (`revoke`)."""

    action: Literal["list", "revoke"] = "list"
    name: HostName | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageHosts:
        if (self.action == "list") != (self.name is None):
            raise field_error("name", "revoke, and nothing else, needs the name of a host")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        return None if self.action == "list" else Act(self.action, self.name)


class HostsReply(Message):
    """All hosts after what was asked, also those that are let in no more."""

    hosts: tuple[Host, ...]


class Join(Message):
    """Whoever holds an invite says the public half of the key that it has made."""

    public_key: PublicKey


class Joined(Message):
    """What became of an invite: the joiner is `name` from now on, and its key is known.

    `servers` are the addresses of all brokers of a cluster.
    """

    name: TenantName
    role: Role = "ask"
    services: tuple[str, ...] = ()
    servers: Annotated[tuple[str, ...], Field(exclude_if=not_)] = ()


class Enrol(Message):
    """A host tells of all of its processes: those of which it does not tell are let in no more. `models` are
    those that they serve, for which there have to be queues; `ensembles` those of its choir.toml."""

    instances: Annotated[tuple[HostedInstance, ...], Field(max_length=MAX_INSTANCES)]
    models: Annotated[tuple[Name, ...], Field(max_length=MAX_MODELS)] = ()
    ensembles: Annotated[tuple[Ensemble, ...], Field(max_length=MAX_ENSEMBLES, exclude_if=not_)] = ()


class Enrolled(Message):
    """They are let in now. `problems` says which of the host's ensembles do not count, and why."""

    instances: int
    problems: Annotated[tuple[str, ...], Field(exclude_if=not_)] = ()
