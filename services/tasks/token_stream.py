"""Streams an answer's text while it is generated: plain publishes on subjects that TOKENS captures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client

from schemas import subjects
from schemas.commands import Generate
from schemas.replies import TokenChunk
from schemas.requests.chat import ToolCall


@dataclass(frozen=True)
class Piece:
    """The new part of an answer: of its text, of the thinking before it, or whole calls. `sample` says of
    which text it is a piece, where there are several; `logprobs` are those of the tokens in it."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    sample: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()


class TokenStream:
    """The chunks of one generation of a task, counted from 0. A later generation has a higher `attempt`."""

    def __init__(self, client: Client, command: Generate, attempt: int = 1) -> None:
        self._client = client
        self._command = command
        self._attempt = attempt
        self._subject = subjects.token(command.request_id, command.agent)
        self.chunks = 0

    async def send(self, piece: Piece, done: bool = False) -> None:
        """Publishes the next chunk."""
        chunk = TokenChunk(
            request_id=self._command.request_id,
            agent=self._command.agent,
            index=self.chunks,
            text=piece.text,
            thinking=piece.thinking or None,
            tool_calls=piece.tool_calls,
            sample=piece.sample,
            logprobs=piece.logprobs,
            done=done,
            attempt=self._attempt,
        )
        self.chunks += 1
        await self._client.publish(self._subject, chunk.to_bytes())

    async def end(self) -> None:
        """Publishes the last chunk, which has no text."""
        await self.send(Piece(), done=True)
