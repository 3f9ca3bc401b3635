"""What pages send and show alike: the body of a form, and what the mesh tells or why it does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from schemas.errors import ChoirError

T = TypeVar("T")
NothingT = TypeVar("NothingT")


class Form(BaseModel):
    """The body of an action. Fields of the form that mean nothing to it are left out."""

    model_config = ConfigDict(extra="ignore")


async def told(ask: Callable[[], Awaitable[T]], nothing: NothingT) -> tuple[T | NothingT, str | None]:
    """What the mesh tells, or `nothing` and why: one part of a page that cannot be told leaves the others."""
    try:
        return await ask(), None
    except ChoirError as error:
        return nothing, error.message
