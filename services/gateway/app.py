"""The ASGI application: the dialects' routes, and around them what holds for all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import ChoirError, InternalError, InvalidRequest
from services.chassis.logs import get_logger
from services.gateway.context import GatewayContext
from services.gateway.dialect import Dialect, dialect_of
from services.gateway.distributed import DISTRIBUTED
from services.gateway.errors import headers_of, status_of, stopping
from services.gateway.exchange import HangUpMiddleware
from services.gateway.figures import Figures
from services.gateway.guard import GuardMiddleware
from services.gateway.ollama import OLLAMA
from services.gateway.openai import OPENAI

DIALECTS: tuple[Dialect, ...] = (OLLAMA, OPENAI, DISTRIBUTED)
"""A path that begins with no dialect's prefix is the first one's."""

SUPERFLUOUS = re.compile(r"^(?:/ollama|/openai|/api|/v1)+(?=/(?:api|v1)(?:/|$))")
"""What people write before a path because they took the address for one that ends elsewhere."""

REFUSED = 400
GONE = 499
"""The status of a request whose client did not wait for one."""
LONGEST_PATH = 200

log = get_logger("gateway.app")


def build_app(context: GatewayContext, dialects: Sequence[Dialect] = DIALECTS) -> ASGIApp:
    """The application that serves these dialects."""

    async def on_error(request: Request, error: Exception) -> Response:
        return reply_to(error, dialect_of(request.scope["path"], dialects))

    return Starlette(
        routes=[route for dialect in dialects for route in dialect.routes(context)],
        middleware=[
            Middleware(OutcomeMiddleware, figures=context.figures, dialects=dialects),
            Middleware(GuardMiddleware, settings=context.settings, dialects=dialects),
            Middleware(HangUpMiddleware, give_up=context.give_up),
            Middleware(PathMiddleware),
        ],
        exception_handlers={HTTPException: on_error, ChoirError: on_error},
    )


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


_HTTP_WORDS = {404: "there is no such path", 405: "this path takes another method"}


class PathMiddleware:
    """Takes the part off a path that somebody wrote twice: `/ollama/api/chat`, `/v1/v1/models`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http" and (found := SUPERFLUOUS.match(scope["path"])) is not None:
            scope = {**scope, "path": scope["path"][found.end() :]}
        await self._app(scope, receive, send)


class OutcomeMiddleware:
    """Counts what becomes of each request, and says in the log what was refused and what failed.

    The last net as well: what nobody expected is an internal error of the dialect.
    """

    def __init__(self, app: ASGIApp, figures: Figures, dialects: Sequence[Dialect]) -> None:
        self._app = app
        self._figures = figures
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        began_s, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        dialect = dialect_of(scope["path"], self._dialects)
        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if not status:
                await reply_to(stopping(), dialect)(scope, receive, watched)
            raise
        except Exception as error:
            log.exception("a handler failed")
            if status:
                raise
            await reply_to(error, dialect)(scope, receive, watched)
        finally:
            self._figures.answered(dialect.name, status or GONE, time.perf_counter() - began_s)
            if status >= REFUSED:
                _tell_refused(scope, status)


def _tell_refused(scope: Scope, status: int) -> None:
    """Who was refused what. A query may hold a key, and is not told."""
    address = (scope.get("client") or ("",))[0]
    path = scope["path"][:LONGEST_PATH]
    log.info("refused", status=status, method=scope["method"], path=path, address=address)
