"""`POST /api/embed` and `POST /api/embeddings`"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import MAX_INPUTS, Ask
from schemas.errors import InternalError, InvalidRequest
from schemas.replies import Answer, Result
from services.chassis.logs import get_logger
from services.client.request_builder import build
from services.gateway.http.body import Many, checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.ollama.bodies import LoadingBody
from services.gateway.ollama.replies import json_reply
from services.gateway.requests.identity import ID_HEADER
from services.gateway.requests.models import Target

TRUNCATED_HEADER = "choir-truncated"
"""Tokens of the texts that were not read, of all: `60 of 200`. Ollama's clients pass over what they do not
know."""

log = get_logger("gateway.embedding")


class EmbedBody(LoadingBody):
    """`POST /api/embed`"""

    input: str | Many[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class EmbeddingsBody(LoadingBody):
    """`POST /api/embeddings`, the older of the two."""

    prompt: str | None = None


class Embedding:
    """Both ways to have vectors of texts."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    @takes(EmbedBody)
    async def embed(self, request: Request) -> Response:
        """A vector of length 1 for each text. Of texts that are too long the end is not read, unless
        `truncate` is false; a header says then how many tokens that were, of how many."""
        fields = await read_json(request, self._context.settings)
        body = checked(fields, EmbedBody)
        texts = [body.input] if isinstance(body.input, str) else body.input or []
        if len(texts) > MAX_INPUTS:
            raise InvalidRequest(f"input: it may have {MAX_INPUTS} entries at most", field="input")
        target = await self._context.models.find(body.named)
        if not [text for text in texts if text]:
            return json_reply({"model": body.named, "embeddings": []})
        wanted = {"inputs": texts, "dimensions": body.dimensions, "truncate": body.truncate is not False}
        result = await self._ask(request, fields, target, body, wanted)
        answer = _answer(result)
        vectors = [unit(vector) for vector in _vectors(answer)]
        said = {"model": body.named, "embeddings": vectors, **_counts(result, answer)}
        headers = {ID_HEADER: result.request_id}
        if cut := answer.prompt_tokens_cut:
            headers[TRUNCATED_HEADER] = f"{cut} of {cut + answer.prompt_tokens}"
            log.info("texts were cut", request=result.request_id, tokens=cut, read=answer.prompt_tokens)
        return json_reply(said, headers=headers)

    @takes(EmbeddingsBody)
    async def embeddings(self, request: Request) -> Response:
        """One vector, as the model gives it. A text that is too long is refused: nobody could say here
        whether it may be cut."""
        fields = await read_json(request, self._context.settings)
        body = checked(fields, EmbeddingsBody)
        target = await self._context.models.find(body.named)
        if not body.prompt:
            return json_reply({"embedding": []})
        result = await self._ask(request, fields, target, body, {"inputs": [body.prompt]})
        vector = _vectors(_answer(result))[0]
        return json_reply({"embedding": vector}, headers={ID_HEADER: result.request_id})

    async def _ask(
        self,
        request: Request,
        given: dict[str, Any],
        target: Target,
        body: LoadingBody,
        embed: dict[str, Any],
    ) -> Result:
        if target.ensemble is not None:
            raise InvalidRequest("model: an ensemble has no vectors, name one model", field="model")
        fields = {
            "embed": embed,
            "request_id": await self._context.retries.id_of(request, given),
            "timeout_s": self._context.settings.timeout_s,
            "keep_alive_s": body.keep_alive_s,
        }
        return await self._context.result_of(build(Ask, {**fields, **target.ask_fields}))


def _answer(result: Result) -> Answer:
    if not result.answers or result.answers[0].embeddings is None:
        raise InternalError("the model was asked for vectors and has given none")
    return result.answers[0]


def _vectors(answer: Answer) -> Sequence[Sequence[float]]:
    return () if answer.embeddings is None else answer.embeddings.numbers


def _counts(result: Result, answer: Answer) -> dict[str, int]:
    return {
        "total_duration": max(0, round((result.completed_at_s - result.accepted_at_s) * 1e9)),
        "load_duration": answer.timings.load_duration_ns,
        "prompt_eval_count": answer.prompt_tokens,
    }


def unit(vector: Sequence[float]) -> list[float]:
    """The same direction at length 1; a vector of zeros stays as it is."""
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length for x in vector] if length else list(vector)
