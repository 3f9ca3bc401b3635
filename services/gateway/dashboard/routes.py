"""The paths of the dashboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.gateway.dashboard.ask.feedback import FeedbackAction
from services.gateway.dashboard.ask.page import AskPage
from services.gateway.dashboard.mesh.page import MeshPage
from services.gateway.dashboard.operate.admin import AdminPage
from services.gateway.dashboard.operate.models import ModelsPage
from services.gateway.dashboard.operate.nodes import NodesPage
from services.gateway.dashboard.operate.pipelines import PipelinesPage
from services.gateway.dashboard.operate.workers import WorkersPage
from services.gateway.dashboard.queries.page import QueriesPage
from services.gateway.dashboard.requests.one import RequestPage
from services.gateway.dashboard.requests.page import RequestsPage
from services.gateway.dashboard.runs.page import RunsPage
from services.gateway.dashboard.shell.charts import Charts
from services.gateway.dashboard.shell.drawing import Drawing
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.login import Login
from services.gateway.dashboard.shell.static_files import icon, static_file
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import StreamedReply

Handler = Callable[[Request], Awaitable[Response | StreamedReply]]


def routes(context: GatewayContext) -> Sequence[BaseRoute]:
    """All routes of this dialect."""
    frame, drawing = Frame(context), Drawing()
    context.at_end(drawing.close)
    mesh, requests, charts = MeshPage(frame), RequestsPage(frame), Charts(frame, drawing)
    nodes, models = NodesPage(frame), ModelsPage(frame)
    pipelines, workers, admin = PipelinesPage(frame), WorkersPage(frame), AdminPage(frame)
    runs, queries = RunsPage(frame), QueriesPage(frame, drawing)
    one, ask, feedback = RequestPage(frame), AskPage(frame), FeedbackAction(frame)
    pages: dict[str, Handler] = {
        "/dashboard": mesh.page,
        "/dashboard/live/mesh": mesh.live,
        "/dashboard/ask": ask.page,
        "/dashboard/requests": requests.page,
        "/dashboard/live/requests": requests.live,
        "/dashboard/requests/{request_id}": one.page,
        "/dashboard/requests/{request_id}/live": one.live,
        "/dashboard/requests/{request_id}/json": one.as_json,
        "/dashboard/nodes": nodes.page,
        "/dashboard/live/nodes": nodes.live,
        "/dashboard/models": models.page,
        "/dashboard/live/models": models.live,
        "/dashboard/pipelines": pipelines.page,
        "/dashboard/live/pipelines": pipelines.live,
        "/dashboard/workers": workers.page,
        "/dashboard/live/workers": workers.live,
        "/dashboard/runs": runs.page,
        "/dashboard/runs/{run}/questions": runs.questions,
        "/dashboard/runs/{run}/charts/{chart}": runs.chart,
        "/dashboard/queries": queries.page,
        "/dashboard/queries/chart": queries.chart,
        "/dashboard/queries/export/{format}": queries.export,
        "/dashboard/admin": admin.page,
        "/dashboard/live/admin": admin.live,
        "/dashboard/charts/vega.js": charts.bundle,
        "/dashboard/charts/{name}": charts.chart,
        "/dashboard/static/{name}": static_file,
        "/favicon.ico": icon,
    }
    actions: dict[str, Handler] = {
        "/dashboard/ask/answers": ask.answers,
        "/dashboard/ask/feedback": feedback.tell,
        "/dashboard/actions/nodes/change": nodes.change,
        "/dashboard/actions/models/change": models.change,
        "/dashboard/actions/models/load": models.load,
        "/dashboard/actions/pipelines/plan": pipelines.plan,
        "/dashboard/actions/pipelines/place": pipelines.place,
        "/dashboard/actions/workers/add": workers.add,
        "/dashboard/actions/workers/change": workers.change,
        "/dashboard/actions/keys/add": admin.add_key,
        "/dashboard/actions/keys/end": admin.end_key,
        "/dashboard/actions/invites/add": admin.invite,
        "/dashboard/actions/tenants/change": admin.change_tenant,
        "/dashboard/actions/hosts/revoke": admin.revoke_host,
        "/dashboard/login": Login(context).login,
    }
    return (
        *(Route(path, handler) for path, handler in pages.items()),
        *(Route(path, handler, methods=["POST"]) for path, handler in actions.items()),
    )
