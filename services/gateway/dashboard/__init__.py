"""The dashboard: the mesh on pages for a browser, made here and live by server-sent events."""

from services.gateway.dashboard.routes import routes
from services.gateway.dashboard.shell.pages import error_page
from services.gateway.http.dialect import Dialect

DASHBOARD = Dialect("dashboard", "/dashboard", routes, error_page)
