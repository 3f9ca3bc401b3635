"""A piece of an answer while it is generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.chat import ToolCall


@dataclass(frozen=True)
class Piece:
    """What is new of an answer: of its text, of the thinking before it, or whole calls. `sample` says of
    which text it is a piece, where there are several; `logprobs` are those of the tokens in it."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    sample: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
