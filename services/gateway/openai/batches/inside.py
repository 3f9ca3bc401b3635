"""A request to the gateway from within: the same endpoints, and no connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from services.gateway.access.caller import CALLER, Caller
from services.gateway.http.connection.protocol import CONNECTION, Connection

HOST = b"localhost"
GIVEN_UP = 499


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered."""

    status: int
    headers: Headers
    body: Any


async def post(
    app: ASGIApp, path: str, fields: dict[str, Any], key: str, connection: Connection, caller: Caller
) -> Reply:
    """The reply to a body of these fields under an idempotency key, in the name of a caller. When the
    `connection` goes, the work is given up."""
    headers = [
        (b"host", HOST),
        (b"content-type", b"application/json"),
        (b"idempotency-key", key.encode()),
    ]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
        "state": {CONNECTION: connection, CALLER: caller},
    }
    body = to_json(fields)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    connection.whole = True
    await app(scope, receive, send)
    if not sent:
        return Reply(GIVEN_UP, Headers(), None)
    start, *rest = sent
    data = b"".join(part.get("body", b"") for part in rest)
    return Reply(start["status"], Headers(raw=start["headers"]), from_json(data))
