"""What every page has in hand: the gateway, who looks, and the ways to show and to keep showing."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import NotPermitted, Unauthenticated
from services.gateway.access.authorization import STALE, WRONG_KEY, allowed
from services.gateway.access.caller import current_caller
from services.gateway.dashboard.shell.live import changes, failed, heartbeat
from services.gateway.dashboard.shell.pages import PAGES, SECURITY, page
from services.gateway.dashboard.shell.watch import Look, Watches
from services.gateway.http.body import BodyT, checked, read_json
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import SSE, StreamedReply


class Frame:
    """Shows pages in the name of whoever looks."""

    def __init__(self, context: GatewayContext) -> None:
        self.context = context
        self._watches = Watches()

    def page(self, template: str, active: str, live: str | None = None, **fields: Any) -> Response:
        """A page, with a way to each other page that the caller may open. `live` is where its changes come
        from."""
        links = [one for one in PAGES if allowed(one.path, "GET")]
        return page(template, active=active, live=live, pages=links, operates=self.operates, **fields)

    def live(
        self, what: Hashable, look: Look, every_s: float, *, for_operators: bool = False
    ) -> StreamedReply:
        """The fragments that `look` makes, whenever they have changed: looked at once for all watchers of
        one tenant, by one key if they have any, who see the same. What is `for_operators` ends with a login
        that is not fresh any more."""
        caller = current_caller.get()
        key = (caller.tenant, caller.role, None if caller.key is None else caller.key.id, what)
        return StreamedReply(
            changes(self._watches.events(key, look, every_s), partial(self._check_still, for_operators)),
            self.context.settings,
            media_type=SSE,
            heartbeat=heartbeat,
            on_error=failed,
        )

    def _check_still(self, for_operators: bool) -> None:
        """Raises Unauthenticated when the key with which a stream was opened is good no more, or the login
        too old."""
        caller = current_caller.get()
        if caller.key is not None and self.context.keyring.with_id(caller.key.id) is None:
            raise Unauthenticated(WRONG_KEY)
        if for_operators and caller.stale:
            raise Unauthenticated(STALE)

    @property
    def operates(self) -> bool:
        """Whether the caller may change the mesh."""
        return allowed("/dashboard/actions", "POST")

    async def said(self, request: Request, model: type[BodyT]) -> BodyT:
        """What a form said, sent by a page of ours or by a program.

        Raises NotPermitted for any other page, also one of this host's other servers; InvalidRequest.
        """
        self.check_own(request)
        return checked(await read_json(request, self.context.settings), model)

    def check_own(self, request: Request) -> None:
        """Raises NotPermitted if another page than one of this gateway has sent the request."""
        origin = request.headers.get("origin")
        if origin is None:
            return
        settings = self.context.settings
        own = {request.headers.get("host", ""), *settings.hosts}
        parts = urlsplit(origin)
        named = origin in settings.origins or parts.netloc in own or parts.hostname in settings.hosts
        if not named:
            raise NotPermitted("only pages of this gateway may do that")


def done(words: str, **more: Any) -> Response:
    """What an action tells the page: what was done, in words, and what else there is to show."""
    fields = {name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
              for name, value in more.items()}  # fmt: skip
    return Response(to_json({"words": words, **fields}), 200, SECURITY, "application/json")
