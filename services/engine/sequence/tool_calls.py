"""Tool calls as models write them, read from their texts. Pure.

Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. Llama 3: the same object alone,
with `parameters`, perhaps after `<|python_tag|>`. Mistral: `[TOOL_CALLS]` and a list of them, or
`[TOOL_CALLS]name[ARGS]{...}`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.requests.chat import MAX_TOOLS, ToolCall

CALL_BEGINS, CALL_ENDS = "<tool_call>", "</tool_call>"
MISTRAL_CALLS = "[TOOL_CALLS]"
PYTHON_TAG = "<|python_tag|>"
ARGUMENTS_BEGIN = "[ARGS]"
OPENERS: dict[str, str | None] = {CALL_BEGINS: CALL_ENDS, MISTRAL_CALLS: None, PYTHON_TAG: None}
"""What a call begins with, and ends with; those without an end go on to the next or to the end of the
text."""

ID_CHARACTERS = 9
"""Letters and digits: Mistral's templates take no other ids."""

_NAME_AND_ARGUMENTS = re.compile(r"\s*([\w.:/-]+)\s*(?:\[CALL_ID\]\w+)?\s*(?:\[ARGS\])?\s*(?=\{)")
_BETWEEN = re.compile(r"[\s,;]*")


@dataclass(frozen=True, slots=True)
class Written:
    """A call as a text has it."""

    name: str
    arguments: dict[str, Any]


def read_calls(text: str, known: Collection[str] = ()) -> tuple[Written, ...] | None:
    """The calls that a text consists of, None if it is anything else. With `known` only these names count."""
    try:
        calls = tuple(_calls(text))
    except (ValueError, RecursionError):
        return None
    if not calls or len(calls) > MAX_TOOLS or (known and any(call.name not in known for call in calls)):
        return None
    return calls


def with_ids(calls: tuple[Written, ...], first: int, salt: str) -> tuple[ToolCall, ...] | None:
    """The calls, the first of them being number `first` of its text; None for names that no tool can have.

    The ids depend on the calls and `salt` alone, so a text that is generated again has the same.
    """
    try:
        return tuple(
            ToolCall(
                id=_id(f"{salt}/{number}/{call.name}/{json.dumps(call.arguments, sort_keys=True)}"),
                name=call.name,
                arguments=call.arguments,
            )
            for number, call in enumerate(calls, first)
        )
    except ValidationError:
        return None


def _id(text: str) -> str:
    digest = base64.b32encode(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    return digest[:ID_CHARACTERS].decode("ascii").lower()


def _calls(text: str) -> Iterator[Written]:
    """Raises ValueError for what is no call."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    at = _BETWEEN.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        named = _NAME_AND_ARGUMENTS.match(text, at)
        value, at = decoder.raw_decode(text, named.end() if named else at)
        if named:
            yield _call({"name": named[1], "arguments": value})
        else:
            yield from map(_call, value if isinstance(value, list) else [value])
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]


def _call(value: Any) -> Written:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a call has a name")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments, parse_constant=_refuse)
    if arguments is None and value.keys() <= {"name", "id", "arguments", "parameters"}:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError("a call has arguments")
    return Written(value["name"], arguments)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
