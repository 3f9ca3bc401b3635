"""Messages and their blocks, as Anthropic's clients send them, made into turns of the contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from schemas.errors import InvalidRequest
from schemas.requests.chat import ChatMessage
from services.gateway.http.body import Body, Many
from services.gateway.openai.chat.messages import refused, turn_of

FAILED = "The call failed: "
THOUGHTS = ("thinking", "redacted_thinking")


class SourceBody(Body):
    """Where an image is: in the request itself, or somewhere else."""

    type: str
    media_type: str | None = None
    data: str | None = None


class BlockBody(Body):
    """A piece of a message's content."""

    type: str
    text: str | None = None
    source: SourceBody | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | Many[BlockBody] | None = None
    is_error: bool | None = None
    thinking: str | None = None


class MessageBody(Body):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Many[BlockBody]


def conversation(messages: Sequence[MessageBody]) -> tuple[ChatMessage, ...]:
    """The same conversation in the contract's words. InvalidRequest names the block that cannot be."""
    names: dict[str, str] = {}
    turns: list[ChatMessage] = []
    for number, message in enumerate(messages):
        place = f"messages.{number}"
        for fields in _turns(message, place, names):
            turns.append(turn_of(fields, place))
    return tuple(turns)


def system_turn(given: str | list[BlockBody] | None) -> tuple[ChatMessage, ...]:
    """The system prompt, if it says something."""
    text = given if isinstance(given, str) else "\n\n".join(_texts(given or (), "system"))
    return (ChatMessage(role="system", content=text),) if text else ()


def _turns(message: MessageBody, place: str, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The turns of a message: results of calls are turns of their own, before what else the user says."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    blocks = [(block, f"{place}.content.{number}") for number, block in enumerate(message.content)]
    if message.role == "assistant":
        yield _said(blocks, names)
        return
    parts = []
    for block, where in blocks:
        if block.type == "tool_result" and message.role == "user":
            yield _result(block, where, names)
        else:
            parts.append(_part(block, where))
    if parts or not blocks:
        yield {"role": message.role, "content": parts}


def _said(blocks: Sequence[tuple[BlockBody, str]], names: dict[str, str]) -> dict[str, Any]:
    texts, calls, thoughts = [], [], []
    for block, where in blocks:
        if block.type in THOUGHTS:
            thoughts.append(block.thinking or "")
        elif block.type == "tool_use":
            calls.append(_call(block, where, names))
        else:
            texts.append(_text(block, where))
    fields: dict[str, Any] = {"role": "assistant", "content": "".join(texts), "tool_calls": calls}
    return {**fields, "thinking": "".join(thoughts) or None}


def _call(block: BlockBody, where: str, names: dict[str, str]) -> dict[str, Any]:
    if block.id is None or block.name is None:
        raise refused(f"{where}.{'id' if block.id is None else 'name'}", "it is missing")
    names[block.id] = block.name
    return {"id": block.id, "name": block.name, "arguments": block.input or {}}


def _result(block: BlockBody, where: str, names: dict[str, str]) -> dict[str, Any]:
    """The result of a call; one that is empty says so itself, and one that failed in words."""
    if block.tool_use_id is None:
        raise refused(f"{where}.tool_use_id", "it is missing")
    content: Any = block.content or ""
    if isinstance(content, list):
        content = [_part(part, f"{where}.content.{number}") for number, part in enumerate(content)]
    if block.is_error:
        before = [{"type": "text", "text": FAILED}]
        content = FAILED + content if isinstance(content, str) else before + content
    fields = {"role": "tool", "content": content, "tool_call_id": block.tool_use_id}
    return {**fields, "name": names.get(block.tool_use_id)}


def _part(block: BlockBody, where: str) -> dict[str, Any]:
    if block.type != "image":
        return {"type": "text", "text": _text(block, where)}
    source = block.source
    if source is None or source.type != "base64" or source.media_type is None or source.data is None:
        raise refused(
            f"{where}.source", "give the image itself, in base64 with its media_type: no address is fetched"
        )
    return {"type": "image", "media_type": source.media_type, "data": source.data}


def _texts(blocks: Sequence[BlockBody], place: str) -> Iterator[str]:
    for number, block in enumerate(blocks):
        yield _text(block, f"{place}.{number}")


def _text(block: BlockBody, where: str) -> str:
    if block.type != "text":
        raise InvalidRequest(f"{where}.type: {block.type!r} is not taken here", field=f"{where}.type")
    if block.text is None:
        raise refused(f"{where}.text", "it is missing")
    return block.text
