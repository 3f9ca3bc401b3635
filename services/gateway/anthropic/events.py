"""The answer as events, in the order that the official client needs: a message, its blocks one after the
other, each begun and ended, then why it ended and what it took."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from schemas.replies import Result, TokenChunk
from services.gateway.anthropic.body import MessagesBody
from services.gateway.anthropic.message import empty_message, ending, said, usage_object
from services.gateway.openai.replying import sse
from services.gateway.openai.replying.outcome import json_arguments
from services.gateway.requests.outcome import pieces, usage
from services.gateway.requests.shown import Shown

PING = sse.named_event("ping", {"type": "ping"})
EMPTY: dict[str, dict[str, str]] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


async def message_events(
    body: MessagesBody, request_id: str, replies: AsyncIterator[TokenChunk | Result]
) -> AsyncGenerator[bytes, None]:
    """The frames of one message."""
    events, shown = MessageEvents(body, request_id), Shown()
    begun = False
    async for reply in replies:
        if not begun:
            begun = True
            yield events.start()
        if isinstance(reply, Result):
            for frame in events.end(reply, shown):
                yield frame
            return
        if (thought := shown.think(reply)) and body.shows_thinking:
            for frame in events.add("thinking", thought):
                yield frame
        for frame in events.add("text", shown.say(reply)):
            yield frame


class MessageEvents:
    """The events of one message. One block is open at a time."""

    def __init__(self, body: MessagesBody, request_id: str) -> None:
        self._body = body
        self._request_id = request_id
        self._open: str | None = None
        self._index = -1

    def start(self) -> bytes:
        """The first event."""
        return _event("message_start", message=empty_message(self._body.model, self._request_id))

    def add(self, kind: str, text: str) -> Iterator[bytes]:
        """A piece of what is thought or said."""
        if not text:
            return
        if self._open != kind:
            yield from self._begin(kind, EMPTY[kind])
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def end(self, result: Result, shown: Shown) -> Iterator[bytes]:
        """All that is missing now that the result is there."""
        choice = said(self._body, result)
        if choice.thinking:
            for piece in pieces(shown.rest_of_thinking(choice.thinking)):
                yield from self.add("thinking", piece)
        for piece in pieces(shown.rest_of_text(choice.text)):
            yield from self.add("text", piece)
        for call in choice.tool_calls:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            yield from self._begin("tool_use", block)
            written = json_arguments(call.arguments)
            yield self._delta({"type": "input_json_delta", "partial_json": written})
        yield from self._close()
        yield _event("message_delta", delta=ending(choice), usage=usage_object(usage(result)))
        yield _event("message_stop")

    def _begin(self, kind: str, block: dict[str, Any]) -> Iterator[bytes]:
        yield from self._close()
        self._open = kind
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        self._open = None
        yield _event("content_block_stop", index=self._index)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return sse.named_event(kind, {"type": kind, **fields})
