"""Ask from a page: the answers of all members side by side as they come, then how they were decided."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import MAX_MEMBERS, MAX_PEERS, Ask
from schemas.ensembles.strategies import AUTO, SPECS, STRATEGIES
from schemas.errors import InvalidRequest
from schemas.message import Name
from schemas.replies import Result
from services.chassis.identity import new_id
from services.client.request_builder import AskOptions, build_ask
from services.gateway.dashboard.requests.parts import result_html
from services.gateway.dashboard.shell.forms import Form, told
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.live import event, failed, heartbeat
from services.gateway.history.told import told_result
from services.gateway.http.body import takes
from services.gateway.http.streaming import SSE, StreamedReply

OTHERS = tuple(spec.name for spec in SPECS if spec.votes and not spec.asks and spec.name != AUTO)
"""Strategies that vote on the answers to the question, and have nobody asked anything else."""
MOST_TOKENS = 4_096
LONGEST_PROMPT = 2**21


class AskBody(Form):
    """What the form says; with `others` it is told what further strategies decide from the same answers. An
    `ensemble` of choir.toml stands for its own models and strategies, whatever else is chosen."""

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)]
    ensemble: Name | None = None
    models: Annotated[list[Name], Field(max_length=MAX_MEMBERS)] = Field(default_factory=list)
    strategies: Annotated[list[Name], Field(max_length=len(STRATEGIES))] = Field(default_factory=list)
    choices: Annotated[list[str], Field(max_length=26)] = Field(default_factory=list)
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    others: bool = False
    summarize_with: Annotated[list[Name], Field(max_length=MAX_PEERS - 1)] = Field(default_factory=list)


class AskPage:
    """Asks in the name of whoever looks at the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._context = frame.context

    async def page(self, _request: Request) -> Response:
        """The form. Without an answer of the mesh it has nobody to choose, and says why."""
        targets, problem = await told(self._context.models.all, ())
        models = [target.members[0] for target in targets if target.ensemble is None]
        ensembles = [target for target in targets if target.ensemble is not None and target.ensemble.named]
        return self._frame.page(
            "ask/page.html.j2",
            "ask",
            models=models,
            ensembles=ensembles,
            strategies=STRATEGIES,
            problem=problem,
        )

    @takes(AskBody)
    async def answers(self, request: Request) -> StreamedReply:
        """What comes of it: pieces of text of each agent, then the result as a fragment."""
        body = await self._frame.said(request, AskBody)
        asked = body.models if body.ensemble is None else [body.ensemble]
        for model in (*asked, *body.summarize_with):
            await self._context.models.find(model)
        return StreamedReply(
            self._frames(ask_of(body)),
            self._context.settings,
            media_type=SSE,
            heartbeat=heartbeat,
            on_error=failed,
        )

    async def _frames(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        # Not an equal request's result: that has no link of its own.
        yield event("asked", {"id": ask.request_id, "link": f"/dashboard/requests/{ask.request_id}"})
        async with aclosing(self._context.follow(ask, share=False)) as replies:
            async for reply in replies:
                if isinstance(reply, Result):
                    yield event("result", {"html": result_html(told_result(reply))})
                else:
                    piece = {"agent": reply.agent, "text": reply.text, "again": bool(reply.restarted)}
                    yield event("piece", piece)


def ask_of(body: AskBody) -> Ask:
    """One model is asked by itself, several are an ensemble, as is one that has a name, and with others after
    it a chain begins. Raises InvalidRequest."""
    options: AskOptions = {
        "request_id": new_id(),
        "max_tokens": body.max_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
    }
    if body.seed is not None:
        options["seed"] = body.seed
    chosen = body.strategies or ["majority"]
    if body.summarize_with:
        if len(body.models) != 1 or body.ensemble is not None:
            raise InvalidRequest("models: a chain begins with one model; choose one", field="models")
        options["model"], options["summarize_with"] = body.models[0], body.summarize_with
    elif body.ensemble is not None:
        options["model"] = body.ensemble
        if body.choices:
            options["choices"] = body.choices
    elif len(body.models) == 1 and not body.strategies:
        options["model"] = body.models[0]
    else:
        options["models"] = body.models
        options["strategies"] = [*chosen, *(name for name in OTHERS if body.others and name not in chosen)]
        if body.choices:
            options["choices"] = body.choices
    return build_ask(body.prompt, options, stream=True)
