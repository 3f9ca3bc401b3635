"""Ask from a page: the answers of all members side by side as they come, then how they were decided."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import MAX_MEMBERS, Ask
from schemas.message import Name
from schemas.replies import Result
from schemas.strategies import STRATEGIES
from services.chassis.identity import new_id
from services.client.request_builder import AskOptions, build_ask
from services.gateway.body import checked, read_json, takes
from services.gateway.context import GatewayContext
from services.gateway.dashboard.live import event, failed, heartbeat
from services.gateway.dashboard.pages import fragment, page
from services.gateway.streaming import SSE, StreamedReply

MOST_TOKENS = 4_096


class AskBody(BaseModel):
    """What the form says."""

    model_config = ConfigDict(extra="ignore")

    prompt: Annotated[str, Field(min_length=1, max_length=200_000)]
    models: Annotated[list[Name], Field(max_length=MAX_MEMBERS)] = Field(default_factory=list)
    strategies: Annotated[list[Name], Field(max_length=len(STRATEGIES))] = Field(default_factory=list)
    choices: Annotated[list[str], Field(max_length=26)] = Field(default_factory=list)
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7


class AskPage:
    """Asks in the name of whoever looks at the page."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def page(self, _request: Request) -> Response:
        """The form."""
        targets = await self._context.models.all()
        models = [target.members[0] for target in targets if target.ensemble is None]
        return page("ask.html.j2", active="ask", live=None, models=models, strategies=STRATEGIES)

    @takes(AskBody)
    async def answers(self, request: Request) -> StreamedReply:
        """What comes of it: pieces of text of each agent, then the result as a fragment."""
        body = checked(await read_json(request, self._context.settings), AskBody)
        for model in body.models:
            await self._context.models.find(model)
        return StreamedReply(
            self._frames(ask_of(body)),
            self._context.settings,
            media_type=SSE,
            heartbeat=heartbeat,
            on_error=failed,
        )

    async def _frames(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        yield event("asked", {"id": ask.request_id, "link": f"/dashboard/requests/{ask.request_id}"})
        async with aclosing(self._context.follow(ask)) as replies:
            async for reply in replies:
                if isinstance(reply, Result):
                    answers = (*reply.answers, *reply.further_answers)
                    html = fragment("result.html.j2", result=reply, answers=answers)
                    yield event("result", {"html": html})
                else:
                    piece = {"agent": reply.agent, "text": reply.text, "again": bool(reply.restarted)}
                    yield event("piece", piece)


def ask_of(body: AskBody) -> Ask:
    """One model is asked by itself, several are an ensemble. Raises InvalidRequest."""
    options: AskOptions = {
        "request_id": new_id(),
        "max_tokens": body.max_tokens,
        "temperature": body.temperature,
    }
    if len(body.models) == 1 and not body.strategies:
        options["model"] = body.models[0]
    else:
        options["models"] = body.models
        options["strategies"] = body.strategies or ["majority"]
        if body.choices:
            options["choices"] = body.choices
    return build_ask(body.prompt, options, stream=True)
