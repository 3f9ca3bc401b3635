"""One line of the log for each request: who asked for what, what came of it, how much that was, and how
long it took.

No line holds what a client chose to say: of a path that is served it has the pattern, of any other no part
that could be a secret; no query, no header, no text.
"""

from __future__ import annotations

import re
import time

from starlette.types import Scope

from services.chassis.logs import get_logger
from services.gateway.access.authorization import ROUTE
from services.gateway.access.caller import Caller
from services.gateway.http.exchange import Reply

REFUSED = 400
GONE = 499
"""The status of a request whose client did not wait for one."""
LONGEST_PATH = 200
LONGEST_PART = 32
"""A part of an unknown path that is longer may be a key, and is not told."""
SECRET = re.compile(r"choir-[^/]*|sk-[^/]*|bearer[^/]*", re.IGNORECASE)
HIDDEN = "(not told)"

log = get_logger("gateway.access")


class AccessLog:
    """Tells of requests that were refused, and with `every` of all."""

    def __init__(self, every: bool) -> None:
        self._every = every

    def ended(self, scope: Scope, caller: Caller, reply: Reply, route: str | None, began_s: float) -> None:
        """A request is over; `route` is its path where that is a route without parameters, `began_s` when it
        came, by `time.perf_counter`."""
        refused = reply.status >= REFUSED
        if not (refused or self._every):
            return
        log.info(
            "refused" if refused else "answered",
            method=scope["method"][:LONGEST_PART],
            route=route or scope.get(ROUTE) or told_of(scope["path"]),
            status=reply.status or GONE,
            ms=round((time.perf_counter() - began_s) * 1000, 1),
            bytes=0 if scope["method"] == "HEAD" else reply.bytes,
            tenant=None if caller.refused is not None else caller.tenant,
            key=None if caller.key is None else caller.key.id,
            address=(scope.get("client") or ("",))[0],
            request=reply.request_id,
        )


def told_of(path: str) -> str:
    """What the log tells of a path that nobody serves."""
    parts = path[: 2 * LONGEST_PATH].split("/")
    shown = (HIDDEN if len(part) > LONGEST_PART else SECRET.sub(HIDDEN, part) for part in parts)
    return "/".join(shown)[:LONGEST_PATH]
