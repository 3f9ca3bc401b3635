"""The body of `POST /v1/messages`, made into an `Ask`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.commands import MAX_MESSAGES, Ask
from schemas.requests.chat import MAX_TOOLS, ChatMessage
from schemas.requests.sampling import Think
from services.gateway.anthropic.blocks import BlockBody, MessageBody, conversation, system_turn
from services.gateway.http.body import Body, Many
from services.gateway.openai.asking.ask import build
from services.gateway.openai.asking.sampling import DEFAULTS, EFFORTS, MOST_TOKENS, Effort
from services.gateway.openai.chat.messages import refused
from services.gateway.requests.identity import seed_of
from services.gateway.requests.models import Target

OWN_NAMES = {"json_schema": "output_config.format.schema", "stop": "stop_sequences"}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class ToolBody(Body):
    """One tool; without a `type`, or with `custom`, one that the client itself runs."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoiceBody(Body):
    """Whether tools may, must or must not be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(Body):
    """Whether it is thought before the answer."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=1)


class FormatBody(Body):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputBody(Body):
    """What the answer is to be like."""

    format: FormatBody | None = None
    effort: Effort | None = None


class CountBody(Body):
    """What a prompt is made of."""

    model: str
    messages: Many[MessageBody] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | Many[BlockBody] | None = None
    tools: Many[ToolBody] | None = Field(default=None, max_length=MAX_TOOLS)

    @property
    def turns(self) -> tuple[ChatMessage, ...]:
        """All that is said. InvalidRequest names the block that cannot be."""
        return (*system_turn(self.system), *conversation(self.messages))

    @property
    def tool_fields(self) -> list[dict[str, Any]]:
        """The tools in the contract's words."""
        return [_tool(tool, f"tools.{number}") for number, tool in enumerate(self.tools or ())]


class MessagesBody(CountBody):
    """What a request may say, of which all but `model`, `messages` and `max_tokens` may be left out."""

    max_tokens: int = Field(ge=1)
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: Many[str] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputBody | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether the client wants to read what was thought."""
        return self.thinking is not None and self.thinking.type != "disabled"

    @property
    def one_call(self) -> bool:
        """Whether the client takes one call at most."""
        return bool(self.tool_choice and self.tool_choice.disable_parallel_tool_use)


def messages_ask(body: MessagesBody, target: Target, request_id: str, timeout_s: float) -> Ask:
    """What the mesh is asked. InvalidRequest names the field that cannot be."""
    turns = body.turns
    if turns and turns[-1].role == "assistant":
        raise refused("messages", "the last one must be the user's: no text is gone on with here")
    given = {
        "max_tokens": min(body.max_tokens, MOST_TOKENS),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "seed": seed_of(request_id),
        "stop": tuple(dict.fromkeys(text for text in body.stop_sequences or () if text)),
        "json_schema": _schema(body),
        "think": _think(body) if target.thinks else None,
    }
    fields: dict[str, Any] = {
        "messages": turns,
        "sampling": {**DEFAULTS, **{name: value for name, value in given.items() if value is not None}},
        "stream": bool(body.stream) and target.streams,
        **_tools(body),
    }
    return build(fields, target, request_id, timeout_s, OWN_NAMES)


def _schema(body: MessagesBody) -> dict[str, Any] | None:
    form = body.output_config.format if body.output_config is not None else None
    return None if form is None else form.schema_


def _think(body: MessagesBody) -> Think:
    """Nothing is thought unless it was asked for."""
    if not body.shows_thinking:
        return False
    effort = body.output_config.effort if body.output_config is not None else None
    return True if effort is None else EFFORTS[effort]


def _tools(body: MessagesBody) -> dict[str, Any]:
    choice = body.tool_choice
    if not body.tools:
        return {}
    fields: dict[str, Any] = {"tools": body.tool_fields}
    if choice is None:
        return fields
    if choice.type != "tool":
        return {**fields, "tool_choice": CHOICES[choice.type]}
    if choice.name is None:
        raise refused("tool_choice.name", "it is missing")
    return {**fields, "tool_choice": {"name": choice.name}}


def _tool(tool: ToolBody, place: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise refused(f"{place}.type", f"{tool.type!r} runs on Anthropic's servers: give a tool of your own")
    fields = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema or None}
    return {name: value for name, value in fields.items() if value is not None}
