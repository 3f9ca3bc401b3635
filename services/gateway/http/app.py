"""The ASGI application: the dialects' routes, and around them what holds for all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from inspect import iscoroutinefunction

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.errors import ChoirError, InternalError, InvalidRequest
from services.chassis.logs import get_logger
from services.gateway.access.authorization import Identities, authorized, permitted
from services.gateway.access.caller import current_caller
from services.gateway.anthropic import ANTHROPIC
from services.gateway.dashboard import DASHBOARD
from services.gateway.description.document import Description
from services.gateway.distributed import DISTRIBUTED
from services.gateway.http.access_log import GONE, AccessLog
from services.gateway.http.connection.protocol import connection_of
from services.gateway.http.context import GatewayContext
from services.gateway.http.dialect import Dialect, dialect_of
from services.gateway.http.errors import headers_of, status_of, stopping
from services.gateway.http.exchange import Exchange, Reply, current_exchange
from services.gateway.http.guard import Guard, headers_for, origin_of, preflight
from services.gateway.ollama import OLLAMA
from services.gateway.openai import OPENAI

DIALECTS: tuple[Dialect, ...] = (OLLAMA, OPENAI, ANTHROPIC, DISTRIBUTED, DASHBOARD)
"""A path that begins with no dialect's prefix is the first one's."""

SUPERFLUOUS = re.compile(r"^(?:/ollama|/openai|/api|/v1)+(?=/(?:api|v1)(?:/|$))")
"""What people write before a path because they took the address for one that ends elsewhere."""

PATHS_KEPT = 256
"""Of so many paths it is remembered whose dialect they are."""

log = get_logger("gateway.app")


Endpoint = Callable[[Request], Awaitable[ASGIApp]]


def build_app(context: GatewayContext, dialects: Sequence[Dialect] = DIALECTS) -> ASGIApp:
    """The application that serves these dialects."""
    return Application(context, dialects)


class Application:
    """Serves each request in one pass: who may ask, which endpoint answers, what is made of a failure, what
    is counted.

    Starlette's router would try one path after the other: a path without parameters is looked up instead.
    Either way what a request may do is decided by the path of the route that serves it.
    """

    def __init__(self, context: GatewayContext, dialects: Sequence[Dialect]) -> None:
        self._figures = context.figures
        self._give_up = context.give_up
        self._access_log = AccessLog(context.settings.access_log)
        self._guard = Guard(context.settings)
        self._identities = Identities(
            context.keyring, context.settings.keys_needed, context.settings.login_fresh_s
        )
        self._dialect_of = lru_cache(PATHS_KEPT)(partial(dialect_of, dialects=dialects))
        of = {dialect.name: list(dialect.routes(context)) for dialect in dialects}
        of.setdefault(DISTRIBUTED.name, []).append(Description(of).route())
        routes = [route for name in of for route in of[name]]
        self._endpoints = _endpoints(routes)
        self._router = Router(authorized(routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        connection = connection_of(scope)
        if scope["type"] != "http" or (connection is not None and connection.gone):
            return
        began_s = time.perf_counter()
        known = (scope["method"], scope["path"]) in self._endpoints
        if not known and (found := SUPERFLUOUS.match(scope["path"])) is not None:
            scope["path"] = scope["path"][found.end() :]
            known = (scope["method"], scope["path"]) in self._endpoints
        dialect = self._dialect_of(scope["path"])
        holds = connection is not None and scope["method"] != "HEAD"
        reply = Reply(send, connection.on_head if connection is not None and holds else None)
        caller = self._identities.caller(scope)
        current_caller.set(caller)
        exchange = Exchange(scope, reply, partial(self._give_up, caller), self._figures.pass_over_field)
        current_exchange.set(exchange)
        if connection is not None:
            connection.on_left = exchange.leave
        try:
            await self._answer(scope, receive, reply, dialect)
        except asyncio.CancelledError:
            if not exchange.left:
                if not reply.status:
                    await reply_to(stopping(), dialect)(scope, receive, reply)
                raise
            _uncancel()
        except Exception as error:
            foreseen = isinstance(error, ChoirError | HTTPException)
            if not foreseen or reply.status:
                log.exception("a handler failed")
            if reply.status:
                raise
            await reply_to(error, dialect)(scope, receive, reply)
        finally:
            self._figures.answered(dialect.name, reply.status or GONE, time.perf_counter() - began_s)
            self._access_log.ended(scope, caller, reply, scope["path"] if known else None, began_s)

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply, dialect: Dialect) -> None:
        origin = origin_of(scope)
        if (problem := self._guard.problem(scope, origin)) is not None:
            status, why = problem
            await dialect.error(status, InvalidRequest(why))(scope, receive, reply)
            return
        if origin is not None:
            if scope["method"] == "OPTIONS":
                await preflight(origin)(scope, receive, reply)
                return
            reply.added = headers_for(origin)
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        if endpoint is None:
            scope["app"] = self  # so that the router raises what it does not find
            await self._router(scope, receive, reply)
            return
        with permitted(scope["path"], scope["method"]) as entry:
            if entry is not None:
                await entry.check()
            response = await endpoint(Request(scope, receive, reply))
            await response(scope, receive, reply)


def _endpoints(routes: Sequence[BaseRoute]) -> dict[tuple[str, str], Endpoint]:
    """What answers a method at a path, for the paths without parameters."""
    found: dict[tuple[str, str], Endpoint] = {}
    for route in routes:
        if isinstance(route, Route) and not route.param_convertors and iscoroutinefunction(route.endpoint):
            for method in route.methods or ():
                found.setdefault((method, route.path), route.endpoint)
    return found


def _uncancel() -> None:
    """Whoever was to be told of the cancellation has gone."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


def reply_to(error: Exception, dialect: Dialect) -> Response:
    """A failure in a dialect's own words."""
    if isinstance(error, HTTPException):
        known = InvalidRequest(_HTTP_WORDS.get(error.status_code, error.detail))
        response = dialect.error(error.status_code, known)
        response.headers.update(error.headers or {})
        return response
    failure = error if isinstance(error, ChoirError) else unexpected(error)
    response = dialect.error(status_of(failure), failure)
    response.headers.update(headers_of(failure))
    return response


def unexpected(error: Exception) -> ChoirError:
    """What a client is told of an error that nobody foresaw: nothing of what it says."""
    return InternalError(f"{type(error).__name__} in the gateway")


_HTTP_WORDS = {
    404: "there is no such path: /openapi.json lists them all, and those of OpenAI begin with /v1",
    405: "this path takes another method",
}
