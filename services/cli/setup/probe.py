"""Looks for servers of models on this host: each kind on its usual port, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter

from schemas.errors import InvalidRequest
from schemas.nodes.workers import DEFAULT_PORTS, HostName, WorkerType

LOOKED_FOR: tuple[WorkerType, ...] = ("ollama", "lm_studio", "exo", "llama_server")
LIMIT_S = 2.0
NOT_FOR_TEXT = ("embed", "rerank", "whisper")
"""Parts of the names of models that generate no text; servers list them among the others."""


HOST_NAME = TypeAdapter(HostName)


@dataclass(frozen=True)
class Place:
    """A host to look at: at the usual ports, or at the one port that was named."""

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """`HOST`, `HOST:PORT` or `[ADDRESS]:PORT`; InvalidRequest for anything else."""
        try:
            if text.count(":") > 1 and not text.startswith("["):  # an IPv6 address alone
                return cls(HOST_NAME.validate_python(text))
            parts = urlsplit(f"//{text}")
            if parts.netloc != text or "@" in text or parts.port == 0:
                raise ValueError(text)
            return cls(HOST_NAME.validate_python(parts.hostname or ""), parts.port)
        except ValueError as error:  # ValidationError is one, and so is a port that is none
            raise InvalidRequest(
                f"host: {text!r} is neither HOST nor HOST:PORT, such as mac-01.local or 127.0.0.1:8080",
                field="host",
            ) from error


@dataclass(frozen=True)
class Found:
    """What was seen at one address: the models that are there, or the reason why it cannot be used."""

    kind: WorkerType
    url: str
    models: tuple[str, ...] = ()
    problem: str | None = None


async def look_around(places: Sequence[Place], ports: dict[WorkerType, int] | None = None) -> list[Found]:
    """All servers that answer there. Where nothing listens there is nothing to say, but of a port that was
    named."""
    ports = ports or {kind: DEFAULT_PORTS[kind] for kind in LOOKED_FOR}
    async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
        looks = [
            probe(client, kind, place.host, port)
            for place in places
            if place.port is None
            for kind, port in ports.items()
        ]
        looks += [
            _at_port(client, place.host, place.port, ports) for place in places if place.port is not None
        ]
        return [found for found in await asyncio.gather(*looks) if found is not None]


async def _at_port(
    client: httpx.AsyncClient, host: str, port: int, ports: dict[WorkerType, int]
) -> Found | None:
    """What listens at one port: Ollama, if it speaks as Ollama does, else what usually listens there."""
    ollama = await probe(client, "ollama", host, port)
    if ollama is None:
        return Found("openai", url_of(host, port), problem="nobody answers there")
    if ollama.models:
        return ollama
    usual = {usual: kind for kind, usual in ports.items() if kind != "ollama"}
    return await probe(client, usual.get(port, "openai"), host, port)


def url_of(host: str, port: int) -> str:
    """The address of a server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def probe(client: httpx.AsyncClient, kind: WorkerType, host: str, port: int) -> Found | None:
    """What one address has; None if nothing listens there."""
    url = url_of(host, port)
    try:
        reply = await client.get(url + ("/api/tags" if kind == "ollama" else "/v1/models"))
        models = names_in(kind, reply.raise_for_status().json())
    except httpx.ConnectError:
        return None
    except httpx.TimeoutException:
        return Found(kind, url, problem=f"it did not answer within {LIMIT_S:g} s")
    except httpx.HTTPStatusError as error:
        return Found(kind, url, problem=f"it answered with status {error.response.status_code}")
    except (httpx.HTTPError, ValueError):
        return Found(kind, url, problem="what it answered is not a list of models")
    return Found(kind, url, models, None if models else "it has no model for text: load one there first")


def names_in(kind: WorkerType, document: Any) -> tuple[str, ...]:
    """The models in a server's list; ValueError for a document that is none."""
    entries = document.get("models" if kind == "ollama" else "data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("there is no list of models in it")
    names: Iterable[Any] = (
        entry.get("name" if kind == "ollama" else "id") for entry in entries if isinstance(entry, dict)
    )
    texts = (name for name in names if isinstance(name, str) and name and not any(c.isspace() for c in name))
    return tuple(
        dict.fromkeys(name for name in texts if not any(part in name.lower() for part in NOT_FOR_TEXT))
    )
