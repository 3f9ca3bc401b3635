"""Joining a mesh: invites, hosts, and what whoever joins says and is told.

An invite is a key that opens one thing, once: to say another key, which is made where it is used. Secrets
never travel: what is stored and sent are public halves.
"""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field

from schemas.catalog import Role
from schemas.message import Message, Name, Struct, is_none
from schemas.tenants import PublicKey, TenantName

MAX_INSTANCES = 256
MAX_MODELS = 1_000
WORKING_SERVICES = ("agent", "shard_stage")
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

    `models` are those whose work it takes, null for any.
    """

    service: Name
    name: Name
    public_key: PublicKey
    models: tuple[Name, ...] | None = None


class Host(Message):
    """An entry of the bucket of hosts: one that has joined, and the processes that it has told of.

    It may run `services`, and no others. From `revoked_at_s` on nobody of it is let in.
    """

    name: HostName
    public_key: PublicKey
    services: tuple[str, ...] = WORKING_SERVICES
    instances: Annotated[tuple[HostedInstance, ...], Field(max_length=MAX_INSTANCES)] = ()
    created_at_s: float
    revoked_at_s: float | None = Field(default=None, exclude_if=is_none)


class Join(Message):
    """Whoever holds an invite says the public half of the key that it has made."""

    public_key: PublicKey


class Joined(Message):
    """What became of an invite: the joiner is `name` from now on, and its key is known."""

    name: TenantName
    role: Role = "ask"
    services: tuple[str, ...] = ()


class Enrol(Message):
    """A host tells of all of its processes: those of which it does not tell are let in no more. `models` are
    those that they serve, for which there have to be queues."""

    instances: Annotated[tuple[HostedInstance, ...], Field(max_length=MAX_INSTANCES)]
    models: Annotated[tuple[Name, ...], Field(max_length=MAX_MODELS)] = ()


class Enrolled(Message):
    """They are let in now."""

    instances: int
