"""Tool calls that a server has made: what is no call that anybody could use is the server's failure."""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import ValidationError

from schemas.errors import GenerationFailed
from schemas.requests.chat import ToolCall

ID_BYTES = 4
MOST_CALLS = 128


def made_call(name: str, arguments: Any, call_id: str | None, number: int) -> ToolCall:
    """Call number `number` of an answer; one that the server gave no id gets one. Raises GenerationFailed."""
    if number >= MOST_CALLS:
        raise GenerationFailed(f"the model wants more than {MOST_CALLS} tools called at once")
    try:
        return ToolCall(id=call_id or f"c{secrets.token_hex(ID_BYTES)}", name=name, arguments=arguments)
    except ValidationError as error:
        raise GenerationFailed("the model has written a tool call that is none: ask it again") from error
