"""API keys: what a person, or a program, shows to a gateway.

A key is a part of a tenant. Whoever makes a key makes its secret, and the mesh keeps the SHA-256 of that: 256
random bits cannot be guessed from their digest, so no slow function is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from operator import not_
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.message import Act, Message, Name, Struct, field_error, is_none
from schemas.requests.tenants import BatchShare
from schemas.subjects import LOCAL_TENANT, Priority

KeyScope = Literal["models", "generate", "embed", "observe", "operate"]
"""`models`: see what can be asked. `generate`: have text generated, and what belongs to it. `embed`: vectors.
`observe`: the mesh, its nodes, its figures. `operate`: change it."""
KEY_SCOPES: tuple[KeyScope, ...] = ("models", "generate", "embed", "observe", "operate")
USUAL_SCOPES: tuple[KeyScope, ...] = ("models", "generate", "embed")

SECRET_PREFIX = "choir-"
SECRET_BYTES = 32
_SECRET = re.compile(r"choir-([a-z0-9][a-z0-9-]{0,31})-[A-Za-z0-9_-]{43}\Z")

KeyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class KeyLimits(Struct):
    """How much a key may take, at all gateways together; None: no limit of its own.

    `requests_in_flight` are those at a time; `requests_per_minute` counts what a model is to read or write
    for, `tokens_per_minute` what it has read and written; `batch_share` is the part of the queue that the
    key's batch work may fill. The limits of the tenant hold besides.
    """

    requests_in_flight: Annotated[int, Field(ge=1, le=100_000)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=is_none)
    batch_share: BatchShare | None = Field(default=None, exclude_if=is_none)


def _is_usual(priority: object) -> bool:
    """For `exclude_if`: a key that says nothing of its priority reads as keys always did."""
    return priority == "interactive"


class ApiKey(Message):
    """One key. `digest` is the SHA-256 of its secret in hexadecimal digits, `ending` its last four
    characters, so that people know it again.

    It opens `scopes`, and of the models those in `models`, all if that is empty. With the `priority` batch
    all that is asked by it waits for what others ask interactively. It ends at `expires_at_s` (Unix time),
    and at once when it is `revoked`. With `cache` false nothing is answered from the cache.
    """

    id: KeyId
    tenant: Name = LOCAL_TENANT
    label: Label = ""
    digest: Digest
    ending: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{4}$")]
    scopes: Annotated[tuple[KeyScope, ...], Field(min_length=1)] = USUAL_SCOPES
    models: Annotated[tuple[Name, ...], Field(max_length=200)] = ()
    limits: KeyLimits = KeyLimits()
    priority: Annotated[Priority, Field(exclude_if=_is_usual)] = "interactive"
    cache: bool = True
    created_at_s: float
    expires_at_s: float | None = None
    revoked: Annotated[bool, Field(exclude_if=not_)] = False

    def usable(self, now_s: float) -> bool:
        """Whether it opens anything now (Unix time)."""
        return not self.revoked and (self.expires_at_s is None or now_s < self.expires_at_s)

    def exceeded_by(self, other: ApiKey) -> str | None:
        """The first field in which another key may do more than this one; None if there is none. One of
        another tenant does more, but than one of `local`, whose the mesh is."""
        if not makes_keys_for(self.tenant, other.tenant):
            return "tenant"
        if not set(other.scopes) <= set(self.scopes):
            return "scopes"
        if self.models and not (other.models and set(other.models) <= set(self.models)):
            return "models"
        if _is_more(other.expires_at_s, self.expires_at_s):
            return "expires_at_s"
        if self.priority == "batch" and other.priority != "batch":
            return "priority"
        for name in KeyLimits.model_fields:
            if _is_more(getattr(other.limits, name), getattr(self.limits, name)):
                return f"limits.{name}"
        return None


def makes_keys_for(tenant: str, other: str) -> bool:
    """Whether a tenant that operates may have a key of another made or changed: whoever has a key of a tenant
    reads what that tenant was answered. So only `local` may, whose the mesh is, and each for itself."""
    return tenant in (other, LOCAL_TENANT)


def _is_more(one: float | None, other: float | None) -> bool:
    """Of two limits, where None is no limit."""
    return other is not None and (one is None or one > other)


class KeyChange(Struct):
    """What is to be different: what is None stays as it is."""

    label: Label | None = None
    scopes: Annotated[tuple[KeyScope, ...], Field(min_length=1)] | None = None
    models: Annotated[tuple[Name, ...], Field(max_length=200)] | None = None
    limits: KeyLimits | None = None
    priority: Annotated[Priority | None, Field(exclude_if=is_none)] = None
    cache: bool | None = None
    expires_at_s: float | None = None


class ManageKeys(Message):
    """A client lists the keys, or changes one of them.

    `add` takes a whole `key` with a new id; `change` the `id` of one that is there, and what is to be
    different; `revoke` ends it for good, and `remove` forgets one that has ended.
    """

    action: Literal["list", "add", "change", "revoke", "remove"] = "list"
    key: ApiKey | None = None
    id: KeyId | None = None
    change: KeyChange | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageKeys:
        if (self.action == "add") != (self.key is not None):
            raise field_error("key", "add, and nothing else, needs a key")
        if (self.action in ("change", "revoke", "remove")) != (self.id is not None):
            raise field_error("id", "change, revoke and remove, and nothing else, need an id")
        if (self.action == "change") != (self.change is not None):
            raise field_error("change", "change, and nothing else, says what is to be different")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        target = self.id if self.key is None else self.key.id
        return None if self.action == "list" else Act(self.action, target)


class KeysReply(Message):
    """The keys that a request concerns, in the order of their ids; `left_out` counts those without room."""

    keys: tuple[ApiKey, ...]
    left_out: int | None = None


def new_secret(key_id: str) -> str:
    """A secret for a key: `choir-<id>-<43 characters>`, of 256 random bits."""
    return f"{SECRET_PREFIX}{key_id}-{secrets.token_urlsafe(SECRET_BYTES)}"


def id_in(secret: str) -> str | None:
    """Which key a secret says that it is of; None for what is no secret of ours."""
    found = _SECRET.match(secret)
    return None if found is None else found[1]


def digest_of(secret: str) -> str:
    """What the mesh keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
