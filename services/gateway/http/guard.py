"""Who may speak to the gateway: requests for its own name, and pages of its own or of allowed origins.

A page on the web can make a browser send requests here, and by DNS rebinding even read the replies; it cannot
choose what the browser says in `Host` and `Origin`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import Scope

from services.chassis.nats.connecting.address import is_loopback
from services.gateway.settings import GatewaySection

AUTHORITY = re.compile(rb"^(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$")
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
ALLOWED_HEADERS = (
    "authorization, content-type, idempotency-key, last-event-id, x-api-key, anthropic-version, "
    "anthropic-beta, anthropic-dangerous-direct-browser-access"
)
PREFLIGHT_KEPT_S = "600"
HOSTS_KEPT = 64
"""For so many values of `Host` the verdict is remembered."""


class Guard:
    """Refuses what is meant for another host, or comes from a page that may not ask here."""

    def __init__(self, settings: GatewaySection) -> None:
        self._hosts = {name.lower() for name in (settings.host, *settings.hosts)}
        self._origins = set(settings.origins)
        self._is_ours = lru_cache(HOSTS_KEPT)(self._names_us)

    def problem(self, scope: Scope, origin: bytes | None) -> tuple[int, str] | None:
        """The status and the words of a refusal; None for a request that may come in, from a page of `origin`
        or from none."""
        hosts, site, json = _read(scope)
        ours = self._is_ours(hosts[0]) if len(hosts) == 1 else None
        if ours is None:
            return 400, "the request must say in one Host header whom it is for"
        if not ours:
            return 403, "this is another host: name it in hosts of section [gateway] if it is meant"
        if origin is None:
            return (403, "pages of other sites may not ask here") if site == b"cross-site" else None
        if not self._may_ask(origin.decode("latin-1")):
            return 403, "pages of this origin may not ask here: name it in origins of section [gateway]"
        if scope["method"] == "POST" and not json:
            return 415, "a page must send application/json"
        return None

    def _names_us(self, host: bytes) -> bool | None:
        """Whether a `Host` names this gateway; None for one that names nobody."""
        authority = AUTHORITY.match(host)
        return None if authority is None else self._is_here(authority["name"].decode().lower())

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


def _read(scope: Scope) -> tuple[list[bytes], bytes, bool]:
    hosts: list[bytes] = []
    site, json = b"", False
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"sec-fetch-site":
            site = value
        elif name == b"content-type":
            json = value.split(b";")[0].strip().lower() == b"application/json"
    return hosts, site, json


def origin_of(scope: Scope) -> bytes | None:
    """The page's origin; None for a request that no page has made."""
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    return origins[-1] if origins else None


def preflight(origin: bytes) -> Response:
    """The reply to a browser that asks whether a page of an allowed origin may ask."""
    headers = {
        "access-control-allow-origin": origin.decode("latin-1"),
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-max-age": PREFLIGHT_KEPT_S,
        "vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def headers_for(origin: bytes) -> dict[bytes, bytes]:
    """What lets a page of an allowed origin read a reply."""
    return {b"access-control-allow-origin": origin, b"vary": b"Origin"}
