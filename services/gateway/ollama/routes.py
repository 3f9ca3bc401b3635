"""The paths of Ollama's interface."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from services.gateway.http.context import GatewayContext
from services.gateway.ollama.embedding import Embedding
from services.gateway.ollama.generating import Generating
from services.gateway.ollama.models.managing import Managing


def routes(context: GatewayContext) -> Sequence[BaseRoute]:
    """All routes of this dialect, what is asked most first. Each GET is a HEAD as well."""
    generating, embedding, managing = Generating(context), Embedding(context), Managing(context)
    return (
        Route("/api/chat", generating.chat, methods=["POST"]),
        Route("/api/generate", generating.generate, methods=["POST"]),
        Route("/api/embed", embedding.embed, methods=["POST"]),
        Route("/api/embeddings", embedding.embeddings, methods=["POST"]),
        Route("/", managing.root),
        Route("/api/version", managing.version),
        Route("/api/tags", managing.tags),
        Route("/api/ps", managing.ps),
        Route("/api/show", managing.show, methods=["POST"]),
        Route("/api/pull", managing.pull, methods=["POST"]),
        Route("/api/copy", managing.copy, methods=["POST"]),
        Route("/api/delete", managing.delete, methods=["DELETE"]),
        Route("/api/create", managing.create, methods=["POST"]),
        Route("/api/push", managing.create, methods=["POST"]),
        Route("/api/me", managing.create, methods=["POST"]),
        Route("/api/blobs/{digest:path}", managing.create, methods=["POST", "GET"]),
    )
