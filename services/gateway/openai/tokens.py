"""`/tokenize`, `/detokenize`, `/tokenizer_info`, as vLLM has them.

lm-evaluation-harness needs no other tokenizer then. A model is named in the body, the query or the path;
where none is named it is the only one.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import Tokenize
from schemas.replies import Tokenized
from services.chassis.plain_words import first_fault
from services.gateway.http.body import Body, Many, checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.openai.chat.messages import MessageBody, conversation, refused

PATHS = ("", "/models/{model:path}")
"""Before the names of these routes: nothing, or a model for clients that cannot name one otherwise."""


class TokenizeBody(Body):
    """A text or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Many[MessageBody] | None = None
    add_special_tokens: bool = True


class DetokenizeBody(Body):
    """Token ids."""

    model: str | None = None
    tokens: Many[int] = Field()


class Tokens:
    """Texts into tokens and back."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    @takes(TokenizeBody)
    async def tokenize(self, request: Request) -> Response:
        """The tokens of a text; the names of control tokens in it are read as such."""
        body = checked(await read_json(request, self._context.settings), TokenizeBody)
        if (body.prompt is None) == (body.messages is None):
            raise refused("prompt", "exactly one of prompt and messages must be given")
        model = await self._model(request, body.model)
        if body.messages is not None:
            told = await self._ask(model, messages=conversation(body.messages))
        else:
            told = await self._ask(model, text=body.prompt, bos=body.add_special_tokens)
        tokens = told.tokens or ()
        return _json({"tokens": tokens, "count": len(tokens), "max_model_len": told.context_tokens})

    @takes(DetokenizeBody)
    async def detokenize(self, request: Request) -> Response:
        """The text of tokens."""
        body = checked(await read_json(request, self._context.settings), DetokenizeBody)
        model = await self._model(request, body.model)
        told = await self._ask(model, tokens=tuple(body.tokens))
        return _json({"prompt": told.text or ""})

    async def info(self, request: Request) -> Response:
        """What is known of a tokenizer."""
        told = await self._ask(await self._model(request, None))
        known = told.tokenizer
        return _json(
            {
                "eos_token": known.eos if known else None,
                "bos_token": known.bos if known else None,
                "pad_token": known.pad if known else None,
                "chat_template": known.chat_template if known else None,
                "model_max_length": told.context_tokens,
            }
        )

    async def _model(self, request: Request, named: str | None) -> str:
        name = request.path_params.get("model") or request.query_params.get("model") or named
        if name is not None:
            target = await self._context.models.find(name)
            if target.ensemble is not None:
                raise refused("model", "an ensemble has no tokens of its own: name one model")
            return target.members[0].name
        models = [target for target in await self._context.models.all() if target.ensemble is None]
        if len(models) != 1:
            known = ", ".join(target.plain_name for target in models) or "none"
            raise refused("model", f"name one, as in /models/<model>/tokenize: there are {known}")
        return models[0].members[0].name

    async def _ask(self, model: str, **fields: Any) -> Tokenized:
        try:
            request = Tokenize.model_validate({"model": model, **fields})
        except ValidationError as error:
            field, why = first_fault(error, whole="tokens")
            raise refused(field, why) from error
        return await self._context.mesh.tokenize(request)


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
