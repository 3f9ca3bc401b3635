"""`POST /v1/embeddings`"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import MAX_INPUTS, Ask
from schemas.replies import Result
from services.gateway.http.body import Body, Many, checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.openai.asking.ask import build
from services.gateway.openai.asking.many import part_id, results_of
from services.gateway.openai.chat.messages import refused
from services.gateway.requests.identity import ID_HEADER
from services.gateway.requests.models import Target

TEXTS_A_REQUEST = 32
"""So many vectors fit into one message, also those of large models."""
TEXTS: TypeAdapter[str | Many[str]] = TypeAdapter(str | Many[str])


class EmbeddingsBody(Body):
    """What a request for vectors may say."""

    model: str
    input: Any
    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def texts(self) -> list[str]:
        """All texts. InvalidRequest for token ids: those of another model's tokenizer mean nothing here."""
        try:
            given = TEXTS.validate_python(self.input, strict=True)
        except ValidationError as error:
            if _holds_numbers(self.input):
                raise refused(
                    "input",
                    "it holds token ids, and they are not this model's: send texts "
                    "(langchain-openai does with check_embedding_ctx_length=False)",
                ) from error
            raise refused("input", "it must be a text or a list of texts") from error
        texts = [given] if isinstance(given, str) else given
        if not 0 < len(texts) <= MAX_INPUTS:
            raise refused("input", f"it must have 1 to {MAX_INPUTS} entries")
        if not all(texts):
            raise refused("input", "a text must not be empty")
        return texts


def _holds_numbers(given: Any) -> bool:
    while isinstance(given, list) and given:
        given = given[0]
    return isinstance(given, int) and not isinstance(given, bool)


class Embeddings:
    """Vectors of texts."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    @takes(EmbeddingsBody)
    async def create(self, request: Request) -> Response:
        """A vector for each text, in base64 unless numbers were asked for."""
        fields = await read_json(request, self._context.settings)
        body = checked(fields, EmbeddingsBody)
        target = await self._context.models.find(body.model)
        request_id = await self._context.retries.id_of(request, fields)
        asks = embedding_asks(body, target, request_id, self._context.settings.timeout_s)
        reply = embedding_list(body, await results_of(self._context, asks))
        return Response(to_json(reply), media_type="application/json", headers={ID_HEADER: request_id})


def embedding_asks(body: EmbeddingsBody, target: Target, request_id: str, timeout_s: float) -> list[Ask]:
    """What the mesh is asked: a request for every few texts."""
    if target.ensemble is not None:
        raise refused("model", "vectors of several models have nothing in common: name one model")
    texts = body.texts
    return [
        build(
            {"embed": {"inputs": texts[start : start + TEXTS_A_REQUEST], "dimensions": body.dimensions}},
            target,
            part_id(request_id, number),
            timeout_s,
        )
        for number, start in enumerate(range(0, len(texts), TEXTS_A_REQUEST))
    ]


def embedding_list(body: EmbeddingsBody, results: tuple[Result, ...]) -> dict[str, Any]:
    """The vectors in the order of the texts."""
    vectors: list[Any] = []
    for result in results:
        if (told := result.answers[0].embeddings) is not None:
            vectors += told.numbers if body.encoding_format == "float" else told.vectors
    tokens = sum(answer.prompt_tokens for result in results for answer in result.answers)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": vector}
            for number, vector in enumerate(vectors)
        ],
        "model": body.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
