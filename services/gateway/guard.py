"""Who may speak to the gateway: requests for its own name, and pages of its own or of allowed origins.

A page on the web can make a browser send requests here, and by DNS rebinding even read the replies; it cannot
choose what the browser says in `Host` and `Origin`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import InvalidRequest
from services.chassis.address import is_loopback
from services.gateway.dialect import Dialect, dialect_of
from services.gateway.settings import GatewaySection

AUTHORITY = re.compile(rb"^(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$")
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
ALLOWED_HEADERS = "authorization, content-type, idempotency-key, last-event-id, x-api-key"
PREFLIGHT_KEPT_S = "600"


class GuardMiddleware:
    """Refuses what is meant for another host, or comes from a page that may not ask here."""

    def __init__(self, app: ASGIApp, settings: GatewaySection, dialects: Sequence[Dialect]) -> None:
        self._app = app
        self._dialects = dialects
        self._hosts = {name.lower() for name in (settings.host, *settings.hosts)}
        self._origins = set(settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        hosts, origin, site, json = _read(scope)
        problem = self._problem(scope["method"], hosts, origin, site, json)
        if problem is not None:
            status, why = problem
            await dialect_of(scope["path"], self._dialects).error(status, InvalidRequest(why))(
                scope, receive, send
            )
        elif origin is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await _preflight(origin)(scope, receive, send)
        else:
            await self._app(scope, receive, _with_origin(send, origin))

    def _problem(
        self, method: str, hosts: Sequence[bytes], origin: str | None, site: bytes, json: bool
    ) -> tuple[int, str] | None:
        """The status and the words of a refusal."""
        if len(hosts) != 1 or (authority := AUTHORITY.match(hosts[0])) is None:
            return 400, "the request must say in one Host header whom it is for"
        if not self._is_here(authority["name"].decode().lower()):
            return 403, "this is another host: name it in hosts of section [gateway] if it is meant"
        if origin is None:
            return (403, "pages of other sites may not ask here") if site == b"cross-site" else None
        if not self._may_ask(origin):
            return 403, "pages of this origin may not ask here: name it in origins of section [gateway]"
        if method == "POST" and not json:
            return 415, "a page must send application/json"
        return None

    def _is_here(self, name: str) -> bool:
        return name in self._hosts or is_loopback(name.strip("[]"))

    def _may_ask(self, origin: str) -> bool:
        if origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            return parts.scheme in ("http", "https") and self._is_here((parts.hostname or "").lower())
        except ValueError:
            return False


def _read(scope: Scope) -> tuple[list[bytes], str | None, bytes, bool]:
    hosts: list[bytes] = []
    origin, site, json = None, b"", False
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin":
            origin = value.decode("latin-1")
        elif name == b"sec-fetch-site":
            site = value
        elif name == b"content-type":
            json = value.split(b";")[0].strip().lower() == b"application/json"
    return hosts, origin, site, json


def _preflight(origin: str) -> Response:
    headers = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-max-age": PREFLIGHT_KEPT_S,
        "vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def _with_origin(send: Send, origin: str) -> Send:
    added = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sent
