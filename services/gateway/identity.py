"""The id of a request: of the client's `Idempotency-Key`, or a new one."""

from __future__ import annotations

import hashlib

from starlette.requests import Request

from schemas.errors import InvalidRequest
from services.chassis.identity import new_id
from services.gateway.access.caller import current_caller

KEY_HEADER = "idempotency-key"
ID_HEADER = "choir-request-id"
LONGEST_KEY = 255
HASH_LENGTH = 40


def request_id_of(request: Request) -> str:
    """The id under which the mesh knows this request: the same for the same key at the same path."""
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return new_id()
    if not key.strip() or len(key) > LONGEST_KEY:
        raise InvalidRequest(f"{KEY_HEADER}: it has 1 to {LONGEST_KEY} characters", field=KEY_HEADER)
    shown = current_caller.get().key
    who = request.headers.get("authorization", "") if shown is None else f"{shown.tenant} {shown.id}"
    return id_of_key(key, request.scope["path"], who)


def id_of_key(key: str, path: str, who: str) -> str:
    """The request id of an idempotency key, for one who asks at one path."""
    said = "\n".join((who, path, key))
    return "key-" + hashlib.sha256(said.encode()).hexdigest()[:HASH_LENGTH]
