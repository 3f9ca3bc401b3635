"""A dialect of HTTP: its routes, and what its clients take for an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.routing import BaseRoute

from schemas.errors import ChoirError
from services.gateway.http.context import GatewayContext


@dataclass(frozen=True)
class Dialect:
    """`prefix` begins the paths that are its own. `error` makes the reply to a failure, also to a path or a
    method that there is not, of a status and the error."""

    name: str
    prefix: str
    routes: Callable[[GatewayContext], Sequence[BaseRoute]]
    error: Callable[[int, ChoirError], Response]


def dialect_of(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """The dialect that a path is of."""
    of = [each for each in dialects if path == each.prefix or path.startswith(f"{each.prefix}/")]
    return max(of, key=lambda dialect: len(dialect.prefix), default=dialects[0])
