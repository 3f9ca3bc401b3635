"""A browser shows its key once, and has it in a cookie after that: no script reads it, and no page of another
site has it sent."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import Unauthenticated
from services.gateway.access.authorization import COOKIE, COOKIE_PATH
from services.gateway.access.fresh_login import LOGIN_COOKIE, login_of
from services.gateway.dashboard.shell.pages import SECURITY
from services.gateway.http.body import read_json
from services.gateway.http.context import GatewayContext

KEPT_S = 12 * 3600


class Login:
    """Takes a key."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def login(self, request: Request) -> Response:
        """Sets the cookie, and one that says when. Raises Unauthenticated for a key that is not valid."""
        secret = (await read_json(request, self._context.settings)).get("key")
        if not isinstance(secret, str) or self._context.keyring.find(secret.strip()) is None:
            raise Unauthenticated("the API key is not valid")
        response, secret = Response(status_code=204, headers=SECURITY), secret.strip()
        shown = login_of(secret, self._context.now())
        for name, value in ((COOKIE, secret), (LOGIN_COOKIE, shown)):
            response.set_cookie(
                name,
                value,
                max_age=KEPT_S,
                path=COOKIE_PATH,
                secure=request.scope["scheme"] == "https",
                httponly=True,
                samesite="strict",
            )
        return response
