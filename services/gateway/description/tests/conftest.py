"""A gateway over a mesh of instant models, and a client of HTTP."""

from services.gateway.tests.conftest import gateway, http

__all__ = ["gateway", "http"]
