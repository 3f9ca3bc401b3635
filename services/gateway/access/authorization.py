"""Who asks is found out for each request, and checked at the route that will run.

A secret comes in one of three headers; a browser that looks at the dashboard has it in a cookie, which counts
there alone, and for what operates the mesh only a while after the key was shown. Without a secret whoever
reaches the gateway is the tenant `local`, unless keys are required. A secret that looks like one of ours, and
is none, is always refused; what a client sends that has to send something (`ollama`, `sk-none`) counts for
nothing. A key opens no more than its tenant may do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from starlette.requests import cookie_parser
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.broker.catalog import ROLES, Role
from schemas.errors import ChoirError, NotPermitted, Overloaded, Unauthenticated
from schemas.requests.keys import SECRET_PREFIX
from schemas.subjects import LOCAL_TENANT
from services.gateway.access.caller import CALLER, Caller, current_caller
from services.gateway.access.fresh_login import LOGIN_COOKIE, fresh_for_s
from services.gateway.access.keyring import Keyring
from services.gateway.access.limits import KeyEntry
from services.gateway.access.scopes import Need, need_of, takes_tokens

BEARER = b"bearer "
COOKIE, COOKIE_PATH = "choir_key", "/dashboard"
KEY_HEADERS = frozenset((b"x-api-key", b"api-key"))
MOST_FAILURES = 20
FAILURES_WITHIN_S = 60.0
MOST_ADDRESSES = 10_000

NO_KEY = "this gateway wants an API key: send it as `Authorization: Bearer KEY`"
WRONG_KEY = "the API key is not valid"
STALE = "this changes the mesh, or shows who may: show the API key again, the login is not fresh"
TWO_KEYS = "the request has several API keys: send one"


class Identities:
    """Finds out who asks. It refuses nothing itself."""

    def __init__(self, keyring: Keyring, required: bool, login_fresh_s: float) -> None:
        self._keyring = keyring
        self._login_fresh_s = login_fresh_s
        self._required = required
        self._failures = Failures()
        self._locals: dict[Role, Caller] = {role: Caller(role=role) for role in ROLES}

    def caller(self, scope: Scope) -> Caller:
        """Who sends a request; the gateway says it of those that it makes itself."""
        inside: Caller | None = scope.get("state", {}).get(CALLER)
        if inside is not None:
            return inside
        shown = secrets_in(scope)
        if not shown:
            return Caller(refused=Unauthenticated(NO_KEY)) if self._required else self._local()
        if len(shown) > 1:
            return Caller(refused=Unauthenticated(TWO_KEYS))
        secret, login = shown.popitem()
        key = self._keyring.find(secret)
        if key is not None:
            role = self._keyring.tenants.role_of(key.tenant)
            until_s = None if login is None else self._fresh_until_s(login, secret)
            return Caller(
                key.tenant, key, self._keyring.use_of(key), role, fresh_until_s=until_s, secret=secret
            )
        if not self._required and not secret.startswith(SECRET_PREFIX):
            return self._local()
        address = (scope.get("client") or ("",))[0]
        wait_s = self._failures.another(address, time.monotonic())
        if wait_s is not None:
            return Caller(refused=Overloaded("too many keys that are not valid", retry_after_s=wait_s))
        return Caller(refused=Unauthenticated(WRONG_KEY))

    def _fresh_until_s(self, login: str, secret: str) -> float:
        return time.monotonic() + fresh_for_s(login, secret, self._login_fresh_s, self._keyring.now())

    def _local(self) -> Caller:
        return self._locals[self._keyring.tenants.role_of(LOCAL_TENANT)]


def secrets_in(scope: Scope) -> dict[str, str | None]:
    """What a request shows as API keys, from whichever header: each with None, or, where only a cookie has
    it, with what the browser keeps of its login."""
    shown: dict[str, str | None] = {}
    with_cookie = scope["path"].startswith(COOKIE_PATH)
    for name, value in scope["headers"]:
        if name in KEY_HEADERS:
            shown[value.decode("latin-1").strip()] = None
        elif name == b"authorization" and value[: len(BEARER)].lower() == BEARER:
            shown[value[len(BEARER) :].decode("latin-1").strip()] = None
        elif with_cookie and name == b"cookie":
            cookies = cookie_parser(value.decode("latin-1"))
            shown.setdefault(cookies.get(COOKIE, ""), cookies.get(LOGIN_COOKIE, ""))
    shown.pop("", None)
    return shown


class Failures:
    """How often an address showed a key that is not valid. A valid key is never looked at for that."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[float, int]] = {}

    def another(self, address: str, now_s: float) -> float | None:
        """Counts one; how long to wait, if there were too many."""
        began_s, count = self._of.get(address, (now_s, 0))
        if now_s - began_s >= FAILURES_WITHIN_S:
            began_s, count = now_s, 0
        self._of.pop(address, None)
        self._of[address] = (began_s, count + 1)
        if len(self._of) > MOST_ADDRESSES:
            del self._of[next(iter(self._of))]
        return None if count < MOST_FAILURES else began_s + FAILURES_WITHIN_S - now_s


NOTHING = nullcontext()


def permitted(path: str, method: str) -> AbstractContextManager[KeyEntry | None]:
    """What the request of the current caller is served within, at a route's path; it gives what is still
    to be checked, if its key has limits.

    Raises Unauthenticated and NotPermitted, for the dialect to tell.
    """
    need, caller = need_of(path, method), current_caller.get()
    if need == "nothing":
        return NOTHING
    if (refusal := _refusal(need, caller)) is not None:
        raise refusal
    if need == "operate" and caller.stale:
        raise Unauthenticated(STALE)
    if caller.key is None or caller.use is None:
        return NOTHING
    batch = caller.priority == "batch"
    return caller.use.request(caller.key, takes_tokens=takes_tokens(path, method), batch=batch)


def allowed(path: str, method: str) -> bool:
    """Whether the current caller may do that at a route's path, once it has logged in, and limits aside."""
    need = need_of(path, method)
    return need == "nothing" or _refusal(need, current_caller.get()) is None


def _refusal(need: Need, caller: Caller) -> ChoirError | None:
    """Why a caller may not; None if it may."""
    if caller.refused is not None:
        return caller.refused
    key = caller.key
    if need == "look":
        asks = caller.role == "ask" if key is None else "generate" in key.scopes
        need = "generate" if asks else "observe"
    if need in ROLES and ROLES.index(caller.role) < ROLES.index(need):
        return NotPermitted(f"the tenant {caller.tenant} may not do that: it needs the role {need!r}")
    if key is not None and need not in key.scopes:
        return NotPermitted(f"this key does not open that: it needs the scope {need!r}")
    return None


ROUTE = "choir.route"
"""Where a request's scope has the path of its route, with its parameters in braces."""


class Authorized:
    """A route's application, run for those who may."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        scope[ROUTE] = self._path
        with permitted(self._path, scope["method"]) as entry:
            if entry is not None:
                await entry.check()
            await self._app(scope, receive, send)


def authorized(routes: Sequence[BaseRoute]) -> Sequence[BaseRoute]:
    """The same routes, each behind its check."""
    for route in routes:
        if not isinstance(route, Route):
            raise TypeError(f"{route!r} is no plain route: nobody knows what it needs")
        route.app = Authorized(route.app, route.path)
    return routes
