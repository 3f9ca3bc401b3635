"""Tools as OpenAI's clients declare them, in chat completions and in responses, made into the contract's."""

from __future__ import annotations

from typing import Any, Literal

from services.gateway.http.body import Body
from services.gateway.openai.chat.messages import refused


class FunctionBody(Body):
    """A function that a model may want called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolBody(Body):
    """One tool. Chat completions have the function in a field of its own, responses in the tool itself."""

    type: str
    function: FunctionBody | None = None
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ChosenFunction(Body):
    """The name of a function."""

    name: str


class ChosenTool(Body):
    """The one tool that has to be called."""

    type: str
    function: ChosenFunction | None = None
    name: str | None = None


ToolChoiceBody = Literal["auto", "none", "required"] | ChosenTool


def tool_fields(tools: list[ToolBody] | None, choice: ToolChoiceBody | None) -> dict[str, Any]:
    """The fields of an `Ask` that say which tools there are. InvalidRequest for what is no function."""
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": [_tool(tool, f"tools.{index}") for index, tool in enumerate(tools)]}
    if choice is not None:
        fields["tool_choice"] = {"name": _chosen(choice)} if isinstance(choice, ChosenTool) else choice
    return fields


def _tool(tool: ToolBody, place: str) -> dict[str, Any]:
    if tool.type != "function":
        raise refused(f"{place}.type", f"{tool.type!r} is not taken here, functions are")
    function = tool.function or tool
    if not function.name:
        raise refused(f"{place}.function.name", "it is missing")
    fields = {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _chosen(choice: ChosenTool) -> str:
    name = choice.function.name if choice.function else choice.name
    if choice.type != "function" or not name:
        raise refused("tool_choice", "it must be auto, none, required, or name a function")
    return name
