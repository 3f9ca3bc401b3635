"""The bodies of requests that generate, and the `Ask` that each stands for."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

from pydantic import Field

from schemas.commands import MAX_MESSAGES, Ask
from schemas.errors import InvalidRequest
from schemas.requests.chat import MAX_TOOLS
from services.client.request_builder import build
from services.gateway.http.body import Body, Many
from services.gateway.http.context import GatewayContext
from services.gateway.ollama.messages import Message, ToolBody, chat_messages, images, tools
from services.gateway.ollama.options import read_options, sampling_fields
from services.gateway.requests.models import Target

ANY_OBJECT = {"type": "object"}
MOST_ALTERNATIVES = 20
LONGEST_S = 10_000_000.0
SPAN = re.compile(r"(?P<sign>[+-]?)(?P<parts>(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|ns))+|\d+(?:\.\d+)?)")
PART = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>h|ms|m|s|us|ns|$)")
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "": 1.0}


def duration_s(text: str) -> float | None:
    """A time as Go writes it (`5m`, `1h30m`), in seconds; a number alone is seconds. None if it is none."""
    whole = SPAN.fullmatch(text.strip())
    if whole is None:
        return None
    span_s = sum(float(one["count"]) * SECONDS[one["unit"]] for one in PART.finditer(whole["parts"]))
    return -span_s if whole["sign"] == "-" else span_s


class NamedBody(Body):
    """A body that names a model, under one of two names."""

    model: str | None = None
    name: str | None = None

    @property
    def named(self) -> str:
        """The model that is meant; InvalidRequest if there is none."""
        if not (named := self.model or self.name):
            raise InvalidRequest("model: it is missing", field="model")
        return named


class LoadingBody(NamedBody):
    """A body that has a model loaded, where it is not."""

    keep_alive: float | str | None = None

    @property
    def keep_alive_s(self) -> float | None:
        """How long the model is to stay loaded afterwards, -1 for as long as it can; None if nothing is said.
        InvalidRequest for what is no time."""
        given = self.keep_alive
        if given is None or given == "":
            return None
        span_s = float(given) if isinstance(given, float | int) else duration_s(given)
        if span_s is None or not isfinite(span_s):
            raise InvalidRequest(
                f"keep_alive: {given!r} is no time; write seconds as a number, or 5m, 1h30m, 500ms, -1",
                field="keep_alive",
            )
        return -1.0 if span_s < 0 else min(span_s, LONGEST_S)


class GenerationBody(LoadingBody):
    """What both ways to generate have in common."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def streams(self) -> bool:
        """Ollama streams unless it is told not to."""
        return self.stream is not False

    @property
    def wanted_thoughts(self) -> bool | str | None:
        """`think`, or what some clients leave of it among the options."""
        return (self.options or {}).get("think") if self.think is None else self.think

    @property
    def unloads(self) -> bool:
        """Whether the model is wanted no longer."""
        return self.keep_alive_s == 0


class ChatBody(GenerationBody):
    """`POST /api/chat`"""

    messages: Many[Message] | None = Field(default=None, max_length=MAX_MESSAGES)
    tools: Many[ToolBody] | None = Field(default=None, max_length=MAX_TOOLS)


class GenerateBody(GenerationBody):
    """`POST /api/generate`"""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: Many[str] | None = None
    context: Many[int] | None = None


def chat_ask(context: GatewayContext, body: ChatBody, target: Target, request_id: str) -> Ask:
    """The request of a chat. InvalidRequest names the field that cannot be."""
    fields = {"messages": chat_messages(body.messages or ()), "tools": tools(body.tools)}
    return _ask(context, body, target, request_id, fields)


def generate_ask(context: GatewayContext, body: GenerateBody, target: Target, request_id: str) -> Ask:
    """The request of a text to go on with. InvalidRequest names the field that cannot be."""
    if body.suffix:
        raise InvalidRequest(f"{body.named} does not support insert: leave suffix out", field="suffix")
    if body.context:
        raise InvalidRequest("context: say what was said before as messages of /api/chat", field="context")
    if body.raw:
        return _ask(context, body, target, request_id, {"raw": {"text": body.prompt}})
    user = {"role": "user", "content": body.prompt or "", "images": images(body.images or ())}
    system = [{"role": "system", "content": body.system}] if body.system else []
    return _ask(context, body, target, request_id, {"messages": [*system, user]})


def _ask(
    context: GatewayContext, body: GenerationBody, target: Target, request_id: str, fields: dict[str, Any]
) -> Ask:
    options = read_options(body.options, context.figures.pass_over)
    sampling = sampling_fields(options, request_id)
    sampling |= {
        "json_schema": _schema(body.format),
        "think": _think(options.think if body.think is None else body.think, target),
        "logprobs": _alternatives(body),
    }
    return build(
        Ask,
        {
            **fields,
            **target.ask_fields,
            "sampling": sampling,
            "request_id": request_id,
            "timeout_s": context.settings.timeout_s,
            "stream": body.streams and target.ensemble is None,
            "keep_alive_s": body.keep_alive_s if target.ensemble is None else None,
        },
    )


def _schema(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not given:
        return None
    if given == "json":
        return ANY_OBJECT
    if isinstance(given, str):
        raise InvalidRequest('format: it must be "json" or a JSON schema', field="format")
    return given


def _think(given: bool | str | None, target: Target) -> bool | str | None:
    """An ensemble's thoughts are what its members say: these are not asked to think.

    A model that cannot is refused in Ollama's own words, which clients look for.
    """
    if target.ensemble is not None:
        return None
    if given and not target.thinks:
        raise InvalidRequest(f'"{target.plain_name}" does not support thinking', field="think")
    return given


def _alternatives(body: GenerationBody) -> int:
    given = body.top_logprobs or 0
    if not 0 <= given <= MOST_ALTERNATIVES:
        raise InvalidRequest(f"top_logprobs: it must be 0 to {MOST_ALTERNATIVES}", field="top_logprobs")
    return max(given, 1) if body.logprobs else 0
