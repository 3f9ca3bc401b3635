"""What every message has in common: frozen, closed, and with the version of its schema."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from schemas.subjects import encode_token

MAX_TOKEN_LENGTH = 200

RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A request's id as its client knows it."""
OwnedId = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_=-]{1,200}=)?[A-Za-z0-9_-]{1,64}$")]
"""The same inside the mesh, with the tenant whose request it is: see `subjects.owned_id`."""


@lru_cache(maxsize=1024)
def _check_token_length(name: str) -> str:
    """Consumers are named after models, and the broker takes at most 255 characters for that."""
    length = len(encode_token(name))
    if length > MAX_TOKEN_LENGTH:
        raise PydanticCustomError(
            "name_too_long",
            "the name takes {length} characters as a subject token, and {limit} is the limit",
            {"length": length, "limit": MAX_TOKEN_LENGTH},
        )
    return name


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\x7f-\x9f]+$"),
    AfterValidator(_check_token_length),
]


def is_none(value: object) -> bool:
    """For fields that came later (`exclude_if`): unset, they are not written, so that what does not use them
    reads as it always did, and has the fingerprint that it always had."""
    return value is None


Topic = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=64,
        pattern=r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
    ),
]
"""What a question is about, such as `astronomy`: agents have a history of their own for each topic."""


def field_error(field: str, message: str) -> PydanticCustomError:
    """A validation error over several fields that still names one: the one to change."""
    return PydanticCustomError("inconsistent", "{message}", {"field": field, "message": message})


class Struct(BaseModel):
    """A piece of a message: frozen, and closed to fields that nobody declared.

    Its validation errors do not repeat the input: that may be a prompt, and errors reach logs and events.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class Act(NamedTuple):
    """What an operator's request changes: the `action` that is asked for, and by its name or id the `target`;
    None where there is but one."""

    action: str
    target: str | None


class Message(Struct):
    """What is sent as one JSON document."""

    schema_version: Literal[1] = Field(default=1)

    def act(self) -> Act | None:
        """What of the mesh itself this request changes; None for one that only looks, or asks for work."""
        return None

    @classmethod
    def read(cls, data: bytes | str) -> Self:
        """A message of a service of this version or a newer one: fields that are not known here are left out.

        What a client sends is not read so: there an unknown field is a mistake, and is named.
        """
        return cls.model_validate_json(data, extra="ignore")

    def to_bytes(self) -> bytes:
        """The wire form: compact JSON, without fields that are null."""
        return self.model_dump_json(exclude_none=True).encode()
