"""The answer to a chat completion as events.

The order is what the official client needs: the role, what was thought, the text, calls, the reason of the
end with an empty delta; then, without a choice, the usage: a later chunk would erase it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from pydantic_core import to_json

from schemas.replies import Result, TokenChunk
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.completion import PREFIX, called, chat_choices, said_logprobs, tool_call
from services.gateway.openai.replying import sse
from services.gateway.openai.replying.outcome import Choice, usage
from services.gateway.openai.streams.place import Place
from services.gateway.openai.streams.track import Track
from services.gateway.requests.shown import Shown

PIECE_LENGTH = 64
"""In pieces of so many characters comes a text that was there all at once."""


async def chat_events(
    body: ChatBody,
    request_id: str,
    created_s: int,
    replies: AsyncIterator[TokenChunk | Result],
    had: Place | None = None,
) -> AsyncGenerator[bytes, None]:
    """The frames of the stream of one completion, without the events that its client has `had`. What comes
    of one reply of the mesh is one frame: the first text need not wait until the role has been sent. What
    the first event takes is made ready while the mesh is at work."""
    track, shown = Track(request_id, had), Shown()
    ready = _Ready(body, request_id, created_s, track)
    asyncio.get_running_loop().call_soon(ready.make)
    chunks: ChatChunks | None = None
    async for reply in replies:
        said = b""
        if chunks is None:
            chunks, said = ready.make()
        if isinstance(reply, Result):
            for frame in chunks.end(reply, shown):
                yield said + frame
                said = b""
            return
        thinks, piece = shown.think(reply), shown.say(reply)
        tokens = track.tell(reply.logprobs) if body.logprobs and (thinks or piece) else ()
        if thought := track.think(thinks):
            said += chunks.delta(0, {"reasoning_content": thought}, said=() if piece else tokens)
        if text := track.say(piece):
            said += chunks.text_of_tokens(text, tokens) if body.logprobs else chunks.text(text)
        if said:
            yield said


class _Ready:
    """What the first event of a stream takes."""

    def __init__(self, body: ChatBody, request_id: str, created_s: int, track: Track) -> None:
        self._of = body, request_id, created_s, track
        self._made: tuple[ChatChunks, bytes] | None = None

    def make(self) -> tuple[ChatChunks, bytes]:
        """The chunks, and the event that begins them: nothing if the client has had that."""
        if self._made is None:
            chunks, track = ChatChunks(*self._of), self._of[-1]
            self._made = chunks, chunks.role(0) if track.begin(0) else b""
        return self._made


class ChatChunks:
    """The events of one stream, all under one id and one time. What is the same in all is encoded once."""

    def __init__(self, body: ChatBody, request_id: str, created_s: int, track: Track) -> None:
        self._body = body
        self._track = track
        self._head = {
            "id": PREFIX + request_id,
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": body.model,
        }
        empty = self._event(0, {"content": "@@"})
        self._before, self._after = empty.split(b'"@@"')

    def role(self, number: int) -> bytes:
        """The first event of a choice."""
        return self.delta(number, {"role": "assistant", "content": "", "refusal": None})

    def text(self, text: str) -> bytes:
        """A piece of the first choice's text."""
        return self._track.stamp(self._before + to_json(text) + self._after)

    def text_of_tokens(self, text: str, tokens: tuple[dict[str, Any], ...]) -> bytes:
        """The same with the probabilities of its tokens."""
        return self.delta(0, {"content": text}, said=tokens)

    def end(self, result: Result, shown: Shown) -> Iterator[bytes]:
        """All that is missing now that the result is there."""
        for number, choice in enumerate(chat_choices(self._body, result)):
            if number:
                if self._track.begin(number):
                    yield self.role(number)
                shown = Shown()
            yield from self._end(number, choice, shown)
        if self._body.wants_usage and self._track.begin(number + 1):
            yield self._track.stamp(sse.event({**self._head, "choices": [], "usage": usage(result)}))
        yield sse.DONE

    def _end(self, number: int, choice: Choice, shown: Shown) -> Iterator[bytes]:
        track = self._track
        if thought := track.think(shown.rest_of_thinking(choice.thinking or "")):
            yield self.delta(number, {"reasoning_content": thought})
        rest = shown.rest_of_text(choice.text)
        for start in range(0, len(rest), PIECE_LENGTH):
            if piece := track.say(rest[start : start + PIECE_LENGTH]):
                yield self.delta(number, {"content": piece})
        for index, call in enumerate(called(self._body, choice)):
            if track.close():
                yield self.delta(number, {"tool_calls": [{"index": index, **tool_call(call)}]})
        if track.close():
            yield self.delta(number, {}, choice.finish_reason, choice.logprobs[track.told :])

    def delta(
        self,
        number: int,
        delta: dict[str, Any],
        reason: str | None = None,
        said: tuple[dict[str, Any], ...] = (),
    ) -> bytes:
        """One event of a choice, with its id."""
        return self._track.stamp(self._event(number, delta, reason, said))

    def _event(
        self,
        number: int,
        delta: dict[str, Any],
        reason: str | None = None,
        said: tuple[dict[str, Any], ...] = (),
    ) -> bytes:
        logprobs = said_logprobs(self._body, said) if said else None
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage_field = {"usage": None} if self._body.wants_usage else {}
        return sse.event({**self._head, "choices": [choice], **usage_field})
