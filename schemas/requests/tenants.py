"""A tenant: a person or an application that asks, what it may do, and how much of the mesh it may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import Role
from schemas.message import Act, Message, Struct, field_error, is_none
from schemas.subjects import LOCAL_TENANT

MAX_KEYS = 16
RESERVED = frozenset({"any", "choir", "sys"})
"""Names that would be mistaken for something of the mesh itself."""


def _check_free(name: str) -> str:
    if name in RESERVED:
        raise PydanticCustomError(
            "reserved_name", "{name} is a name of the mesh's own; take another one", {"name": name}
        )
    return name


TenantName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$"), AfterValidator(_check_free)
]
"""One token of a subject as it is, the name of an account of the broker, and part of request ids."""

PublicKey = Annotated[str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$")]
"""The public half of an nkey of a user. The seed stays with whoever made it."""


BatchShare = Annotated[float, Field(gt=0, le=1)]
"""A part of the queue, for work of the class batch."""

QUEUE_LENGTH = next(spec.max_messages for spec in catalog.STREAMS if spec.name == subjects.COMMANDS_STREAM)
"""How many requests the queue has room for."""


def most_of_batch(share: float) -> int:
    """How many requests of the class batch may be in work at a time for whoever has this part of the queue:
    one at least."""
    return max(1, int(share * QUEUE_LENGTH))


class TenantLimits(Struct):
    """How much a tenant may take, over all routers. Null: as much as there is.

    `requests_in_flight` are those without a result yet; `tokens_per_minute` counts tokens of prompts and
    answers; `batch_share` is the part of the queue that its batch work may fill; `connections` are those to
    one server of the broker.
    """

    requests_in_flight: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=is_none)
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=is_none)
    batch_share: BatchShare | None = Field(default=None, exclude_if=is_none)
    connections: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=is_none)


class Tenant(Message):
    """An entry of the bucket of tenants, and a `[[tenants]]` section of choir.toml.

    `public_keys` are those that its clients may show: with two a key is exchanged without an outage. Without
    any nobody comes in as this tenant, unless it is the one of those who show none. Work of two tenants in
    one queue is done in the proportion of their `weight`. From `expires_at_s` or `revoked_at_s` on it is let
    in no more.
    """

    name: TenantName
    role: Role = "ask"
    public_keys: Annotated[tuple[PublicKey, ...], Field(max_length=MAX_KEYS)] = ()
    limits: TenantLimits = TenantLimits()
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    created_at_s: float = 0.0
    expires_at_s: float | None = None
    revoked_at_s: float | None = None

    @field_validator("public_keys")
    @classmethod
    def _different_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(keys)) != len(keys):
            raise PydanticCustomError("twice", "a key is named twice")
        return keys

    def is_valid(self, now_s: float) -> bool:
        """Whether it is let in at this time."""
        ends = (end for end in (self.expires_at_s, self.revoked_at_s) if end is not None)
        return all(now_s < end for end in ends)


LOCAL = Tenant(name=LOCAL_TENANT, role="operate")
"""Whoever is not told apart from others, as long as the bucket says nothing else of `local`."""


class ManageTenants(Message):
    """An operator lists the tenants, says how much one may take (`limit`: all its limits, and its weight if
    that is to be another), or lets one in no more (`revoke`)."""

    action: Literal["list", "limit", "revoke"] = "list"
    name: TenantName | None = None
    limits: TenantLimits | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageTenants:
        if (self.action == "list") != (self.name is None):
            raise field_error("name", "limit and revoke, and nothing else, need the name of a tenant")
        if (self.action == "limit") != (self.limits is not None):
            raise field_error("limits", "limit, and nothing else, needs limits")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        return None if self.action == "list" else Act(self.action, self.name)


class TenantsReply(Message):
    """All tenants after what was asked, also those that are let in no more."""

    tenants: tuple[Tenant, ...]
