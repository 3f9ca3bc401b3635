"""The official client, before a gateway over a mesh of instant models."""

from services.gateway.openai.tests.conftest import client, gateway

__all__ = ["client", "gateway"]
