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
from services.chassis.nats.connection import check_payload

TEMPLATE_TOKENS_PER_MESSAGE = 32


def certainly_fits(messages: tuple[ChatMessage, ...], tokens: int) -> bool:
    """Whether the prompt has fewer than `tokens` tokens however it is tokenized."""
    most = sum(len(m.content.encode()) + TEMPLATE_TOKENS_PER_MESSAGE for m in messages)
    return most < tokens


async def count_tokens(
    client: Client, model: str, messages: tuple[ChatMessage, ...], timeout_s: float
) -> TokenCount:
    """What an agent of `model` counts.

    Raises PayloadTooLarge, or BrokerUnavailable if none could count within `timeout_s`.
    """
    question = CountTokens(messages=messages).to_bytes()
    check_payload(client, question)
    try:
        reply = await client.request(subjects.count_tokens(model), question, timeout=timeout_s)
        return TokenCount.read(reply.data)
    except (nats.errors.Error, ValidationError) as error:
        why = str(error) or type(error).__name__
        raise BrokerUnavailable(f"no agent of {model} has counted the prompt in time: {why}") from error
