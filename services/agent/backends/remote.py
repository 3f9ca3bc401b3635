"""What backends that ask an HTTP server can do besides: see which models there are, and embed texts."""

from __future__ import annotations

import os
from typing import Protocol

import httpx

from schemas.errors import ModelUnusable
from services.agent.backends.backend import Backend
from services.agent.backends.faults import check_content
from services.agent.settings import ModelSection, ServerSection

SPARE_CONNECTIONS = 4
"""Beside those for generations: a check must not wait for a slot."""

UNKNOWN_CONTEXT_TOKENS = 2**31 - 1
"""Said where nobody knows how long a server's context is: the server itself refuses what is too long."""

Embeddings = tuple[tuple[float, ...], ...]


class RemoteBackend(Backend, Protocol):
    """One model on a server."""

    async def models(self) -> tuple[str, ...]:
        """The models that the server has. Raises WorkerFailed."""

    async def check(self) -> None:
        """Raises WorkerFailed if the server does not answer, ModelUnusable if the model is not there."""

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """One vector for each text. Raises WorkerFailed, GenerationFailed."""


def server_of(model: ModelSection) -> ServerSection:
    """Where the model is served; ModelUnusable if the settings do not say."""
    if model.server is None:
        raise ModelUnusable(f"model {model.name} needs server = {{ type, url }}", field="server")
    return model.server


def api_key(server: ServerSection) -> str | None:
    """The key in the environment, if one is named; ModelUnusable if it is not there."""
    if server.key_variable is None:
        return None
    key = os.environ.get(server.key_variable)
    if not key:
        raise ModelUnusable(
            f"{server.url} needs a key, and the agent's environment has no {server.key_variable}",
            field="key_variable",
        )
    return key


def limits(server: ServerSection, slots: int) -> tuple[httpx.Timeout, httpx.Limits]:
    """How long is waited, and how many connections are open at once.

    The read limit is the stall limit: for so long may a server say nothing at all. Each request has a
    connection of its own: on one that is kept, a server that closes it at the wrong moment looks like one
    that failed, and nothing here is tried twice.
    """
    timeout = httpx.Timeout(server.stall_limit_s, connect=server.connect_limit_s)
    return timeout, httpx.Limits(max_connections=slots + SPARE_CONNECTIONS, max_keepalive_connections=0)


HOOKS = {"response": [check_content]}


def check_listed(name: str, listed: tuple[str, ...], url: str) -> None:
    """Raises ModelUnusable, with what there is, unless the server has the model."""
    if name not in listed:
        known = ", ".join(sorted(listed)[:12]) or "none"
        raise ModelUnusable(f"{url} has no model {name}; it has: {known}", field="model", known=listed)
