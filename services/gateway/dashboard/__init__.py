"""The dashboard: the mesh on pages for a browser, made here and live by server-sent events."""

from services.gateway.dashboard.pages import error_page
from services.gateway.dashboard.routes import routes
from services.gateway.dialect import Dialect

DASHBOARD = Dialect("dashboard", "/dashboard", routes, error_page)
