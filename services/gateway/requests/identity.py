"""The id of a request: of the client's `Idempotency-Key`, or a new one."""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache

from starlette.requests import Request

from schemas.errors import InvalidRequest
from services.chassis.identity import new_id
from services.gateway.access.caller import current_caller
from services.gateway.http.exchange import current_exchange, header_of

KEY_HEADER = "idempotency-key"
ID_HEADER = "choir-request-id"
LONGEST_KEY = 255
HASH_LENGTH = 40
NO_ID = 0x9E3779B9
"""The seed of no id at all: not 0, which clients choose themselves."""


def request_id_of(request: Request) -> str:
    """The id under which the mesh knows this request: the same for the same key at the same path."""
    key = header_of(request.scope, KEY_HEADER)
    if key is None:
        return made_id()
    if not key.strip() or len(key) > LONGEST_KEY:
        raise InvalidRequest(f"{KEY_HEADER}: it has 1 to {LONGEST_KEY} characters", field=KEY_HEADER)
    shown = current_caller.get().key
    who = header_of(request.scope, "authorization") or "" if shown is None else f"{shown.tenant} {shown.id}"
    return id_of_key(key, request.scope["path"], who)


def made_id() -> str:
    """A new id. The mesh is told that it is new when it is asked under it for the first time."""
    request_id = new_id()
    exchange = current_exchange.get()
    if exchange is not None:
        exchange.made.add(request_id)
    return request_id


def is_new(request_id: str | None) -> bool:
    """Whether an id was made for this exchange; of each only once."""
    exchange = current_exchange.get()
    if exchange is None or request_id not in exchange.made:
        return False
    exchange.made.discard(request_id)
    return True


@lru_cache(maxsize=256)
def seed_of(request_id: str) -> int:
    """The seed of a request that names none: asked again under its id, it is the same request.

    It need be no secret, and a digest of OpenSSL's takes 50 us of a request that comes after a pause.
    """
    return zlib.crc32(request_id.encode(), NO_ID)


def id_of_key(key: str, path: str, who: str) -> str:
    """The request id of an idempotency key, for one who asks at one path."""
    said = "\n".join((who, path, key))
    return "key-" + hashlib.sha256(said.encode()).hexdigest()[:HASH_LENGTH]
