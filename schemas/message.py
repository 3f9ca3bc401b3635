"""What every message has in common: frozen, closed, and with the version of its schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^\S+$")]


def field_error(field: str, message: str) -> PydanticCustomError:
    """A validation error over several fields that still names one: the one to change."""
    return PydanticCustomError("inconsistent", "{message}", {"field": field, "message": message})


class Part(BaseModel):
    """A piece of a message: frozen, and closed to fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Part):
    """What is sent as one JSON document."""

    schema_version: Literal[1] = Field(default=1)

    def to_bytes(self) -> bytes:
        """The wire form: compact JSON, without fields that are null."""
        return self.model_dump_json(exclude_none=True).encode()
