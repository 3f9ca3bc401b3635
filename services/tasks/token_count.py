"""Counts the tokens of a prompt for a model: from its bytes where that is enough, else an agent is asked.

A tokenizer of bytes never makes more tokens than there are bytes, so a prompt that is short in bytes
is known to fit. Only for a long one is an agent of the model asked to count.
"""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.commands import ChatMessage, CountTokens
from schemas.errors import BrokerUnavailable
from schemas.replies import TokenCount
from schemas.requests.chat import Tool
from services.chassis.nats.connection import check_payload

TEMPLATE_TOKENS_PER_MESSAGE = 32
TEMPLATE_TOKENS_OF_TOOLS = 1_024
"""What templates say of how tools are called, at most."""
SPREAD_JSON = 4
"""So many times longer than on the wire may a template write a tool or a call: indented, a key a line."""


def certainly_fits(messages: tuple[ChatMessage, ...], tokens: int, tools: tuple[Tool, ...] = ()) -> bool:
    """Whether the prompt has fewer than `tokens` tokens however it is tokenized."""
    most = sum(_bytes_of(message) + TEMPLATE_TOKENS_PER_MESSAGE for message in messages)
    if tools:
        most += TEMPLATE_TOKENS_OF_TOOLS
        most += sum(SPREAD_JSON * len(tool.model_dump_json().encode()) for tool in tools)
    return most < tokens


def _bytes_of(message: ChatMessage) -> int:
    """At least those of all that a template can write of a turn; images take what the model makes of them."""
    said = len(message.content.encode()) + len((message.thinking or "").encode())
    return said + sum(SPREAD_JSON * len(call.model_dump_json().encode()) for call in message.tool_calls)


async def count_tokens(
    client: Client,
    model: str,
    messages: tuple[ChatMessage, ...],
    timeout_s: float,
    tools: tuple[Tool, ...] = (),
) -> TokenCount:
    """What an agent of `model` counts.

    Raises PayloadTooLarge, or BrokerUnavailable if none could count within `timeout_s`.
    """
    question = CountTokens(messages=messages, tools=tools).to_bytes()
    check_payload(client, question)
    try:
        reply = await client.request(subjects.count_tokens(model), question, timeout=timeout_s)
        return TokenCount.read(reply.data)
    except (nats.errors.Error, ValidationError) as error:
        why = str(error) or type(error).__name__
        raise BrokerUnavailable(f"no agent of {model} has counted the prompt in time: {why}") from error
