"""Ollama's HTTP interface."""

from services.gateway.http.dialect import Dialect
from services.gateway.ollama.replies import error_reply
from services.gateway.ollama.routes import routes

OLLAMA = Dialect("ollama", "/api", routes, error_reply)
