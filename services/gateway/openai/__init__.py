"""OpenAI's HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from services.gateway.http.context import GatewayContext
from services.gateway.http.dialect import Dialect
from services.gateway.openai.batches.routes import Batches
from services.gateway.openai.chat.endpoint import Chat
from services.gateway.openai.completions.endpoint import Completions
from services.gateway.openai.embeddings import Embeddings
from services.gateway.openai.files.routes import Files
from services.gateway.openai.files.store import FileStore
from services.gateway.openai.models import Models
from services.gateway.openai.replying.error import error_response
from services.gateway.openai.responses.routes import Responses
from services.gateway.openai.tokens import PATHS, Tokens


def _routes(context: GatewayContext) -> Sequence[BaseRoute]:
    chat, completions, models = Chat(context), Completions(context), Models(context)
    embeddings, tokens = Embeddings(context), Tokens(context)
    files = FileStore(context.client, context.now)
    return (
        Route("/v1/models", models.all),
        Route("/v1/models/{model:path}", models.one),
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
        Route("/v1/embeddings", embeddings.create, methods=["POST"]),
        *Responses(context).routes(),
        *Files(context, files).routes(),
        *Batches(context, files).routes(),
        *(
            route
            for path in PATHS
            for route in (
                Route(f"{path}/v1/completions", completions.create, methods=["POST"]),
                Route(f"{path}/tokenize", tokens.tokenize, methods=["POST"]),
                Route(f"{path}/detokenize", tokens.detokenize, methods=["POST"]),
                Route(f"{path}/tokenizer_info", tokens.info),
            )
        ),
    )


OPENAI = Dialect("openai", "/v1", _routes, error_response)
