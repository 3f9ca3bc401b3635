"""Conversations: turns of text and images, tools that a model may call, and its calls."""

from __future__ import annotations

import base64
import binascii
import json
from operator import not_
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from schemas.message import Struct, field_error, is_none

MAX_TOOLS = 128
MAX_IMAGES = 32

Role = Literal["system", "user", "assistant", "tool"]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
CallId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]


class Image(Struct):
    """A picture beside a turn's text: its bytes in base64."""

    type: Literal["image"] = "image"
    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"] = "image/png"
    data: Annotated[str, StringConstraints(min_length=4)]

    @field_validator("data")
    @classmethod
    def _is_base64(cls, data: str) -> str:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise PydanticCustomError("base64", "it is not base64") from error
        return data


class ToolCall(Struct):
    """A model wants a tool called: with `arguments` as the tool's schema says. Its result names the `id`."""

    id: CallId
    name: ToolName
    arguments: dict[str, Any] = Field(default_factory=dict)

    @property
    def canonical(self) -> str:
        """Name and arguments as JSON with sorted keys: equal for calls that ask for the same."""
        called = {"name": self.name, "arguments": self.arguments}
        return json.dumps(called, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Tool(Struct):
    """A function that a model may ask for. `parameters` is the JSON schema of its arguments, an object."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


class NamedTool(Struct):
    """The one tool that has to be called."""

    name: ToolName


ToolChoice = Literal["auto", "none", "required"] | NamedTool
"""Whether a model may call tools, must not, must call some, or must call this one."""


PLAIN_FIELDS = frozenset(("role", "content"))
ROLES_WITH: dict[str, tuple[str, ...]] = {
    "images": ("user", "tool"),
    "thinking": ("assistant",),
    "tool_calls": ("assistant",),
    "tool_call_id": ("tool",),
}
"""Which turns have what."""


class ChatMessage(Struct):
    """One turn of a conversation.

    `content` may be given as a list of parts, `{"type": "text", "text": ...}` and images: the texts are
    joined and the images kept in `images`. The role `developer` is taken for `system`, and null for an empty
    content. An assistant's turn may have `tool_calls`, and `thinking` that is no part of what it said. A turn
    of the role `tool` is the result of the call `tool_call_id`, of the tool `name`.
    """

    role: Role
    images: Annotated[tuple[Image, ...], Field(max_length=MAX_IMAGES, exclude_if=not_)] = ()
    content: Annotated[str, Field(validate_default=True)] = ""
    thinking: Annotated[str | None, Field(exclude_if=is_none)] = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=MAX_TOOLS, exclude_if=not_)] = ()
    tool_call_id: Annotated[CallId | None, Field(exclude_if=is_none)] = None
    name: Annotated[ToolName | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.keys() == PLAIN_FIELDS and type(given["content"]) is str and given["role"] != "developer":
            return given  # as most turns are
        plain = dict(given)
        if plain.get("role") == "developer":
            plain["role"] = "system"
        if plain.get("content", "") is None:
            plain["content"] = ""
        if isinstance(plain.get("content"), list | tuple):
            text, images = _parts(plain["content"])
            plain["content"] = text
            plain["images"] = (*(plain.get("images") or ()), *images)
        # What was read from JSON is no JSON any more to the fields: a strict one takes no list for a tuple.
        return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: str, turn: ValidationInfo) -> str:
        role = turn.data.get("role")
        if not content and not turn.data.get("images") and role in ("system", "user"):
            raise PydanticCustomError("string_too_short", "it must not be empty", {"min_length": 1})
        return content

    @field_validator("images", "thinking", "tool_calls", "tool_call_id")
    @classmethod
    def _belongs_to_role(cls, value: Any, turn: ValidationInfo) -> Any:
        roles = ROLES_WITH[turn.field_name or ""]
        role = turn.data.get("role")
        if value and role is not None and role not in roles:
            raise PydanticCustomError(
                "role", "only a turn of the role {roles} has that", {"roles": " or ".join(roles)}
            )
        return value


def _parts(parts: list[Any] | tuple[Any, ...]) -> tuple[str, list[Any]]:
    """The text of all parts, and the images among them."""
    texts, images = [], []
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
        if kind == "text" and isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image":
            images.append(part)
        else:
            raise PydanticCustomError(
                "part",
                "part {number} of its content is neither a text nor an image: "
                '{"type": "text", "text"} or {"type": "image", "media_type", "data"}',
                {"number": number},
            )
    return "".join(texts), images


def check_tools(tools: tuple[Tool, ...], choice: ToolChoice) -> None:
    """Raises a validation error, naming the field, for tools that are named twice or not there."""
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise field_error("tools", "a tool is named twice")
    if isinstance(choice, NamedTool) and choice.name not in names:
        raise field_error("tool_choice", f"there is no tool {choice.name}: give it in tools")
    if choice == "required" and not names:
        raise field_error("tool_choice", "a call is required, and there is no tool: give some in tools")


def is_forced(choice: ToolChoice) -> bool:
    """Whether a model has to call a tool."""
    return choice == "required" or isinstance(choice, NamedTool)
