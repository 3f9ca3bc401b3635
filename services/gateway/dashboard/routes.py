"""The paths of the dashboard."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from services.gateway.context import GatewayContext
from services.gateway.dashboard.ask_page import AskPage
from services.gateway.dashboard.login import Login
from services.gateway.dashboard.mesh_page import MeshPage
from services.gateway.dashboard.request_page import RequestPage
from services.gateway.dashboard.requests_page import RequestsPage
from services.gateway.dashboard.static_files import static_file


def routes(context: GatewayContext) -> Sequence[BaseRoute]:
    """All routes of this dialect."""
    mesh, requests = MeshPage(context), RequestsPage(context)
    one, ask, login = RequestPage(context), AskPage(context), Login(context)
    return (
        Route("/dashboard", mesh.page),
        Route("/dashboard/live/mesh", mesh.live),
        Route("/dashboard/ask", ask.page),
        Route("/dashboard/ask/answers", ask.answers, methods=["POST"]),
        Route("/dashboard/requests", requests.page),
        Route("/dashboard/live/requests", requests.live),
        Route("/dashboard/requests/{request_id}", one.page),
        Route("/dashboard/requests/{request_id}/json", one.as_json),
        Route("/dashboard/login", login.login, methods=["POST"]),
        Route("/dashboard/static/{name}", static_file),
    )
