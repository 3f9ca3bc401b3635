"""Does a prompt fit the model's context? Asked at the door, before anything is stored.

A tokenizer of bytes never makes more tokens than there are bytes, so a prompt that is short in bytes
is known to fit. Only for a long one is an agent of the model asked to count.
"""

from __future__ import annotations

import asyncio

import nats.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.commands import ChatMessage, CountTokens
from schemas.errors import ContextExceeded
from schemas.replies import TokenCount
from services.chassis.directory import Serving
from services.chassis.logs import get_logger

TEMPLATE_TOKENS_PER_MESSAGE = 32
COUNT_TIMEOUT_S = 0.6

log = get_logger("router.context")


def certainly_fits(messages: tuple[ChatMessage, ...], context_tokens: int) -> bool:
    """Whether the prompt fits however it is tokenized."""
    most = sum(len(m.content.encode()) + TEMPLATE_TOKENS_PER_MESSAGE for m in messages)
    return most < context_tokens


class ContextCheck:
    """Refuses prompts that are longer than a model's context."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def check(
        self, messages: tuple[ChatMessage, ...], models: tuple[str, ...], serving: Serving, field: str
    ) -> None:
        """Raises ContextExceeded, naming `field`, if the prompt is too long for one of `models`."""
        doubtful = [model for model in models if not self._fits(messages, model, serving)]
        await asyncio.gather(*(self._count(messages, model, field) for model in doubtful))

    def _fits(self, messages: tuple[ChatMessage, ...], model: str, serving: Serving) -> bool:
        contexts = [served.context_tokens for _, served in serving.get(model, [])]
        return all(context is None or certainly_fits(messages, context) for context in contexts)

    async def _count(self, messages: tuple[ChatMessage, ...], model: str, field: str) -> None:
        question = CountTokens(messages=messages).to_bytes()
        try:
            reply = await self._client.request(
                subjects.count_tokens(model), question, timeout=COUNT_TIMEOUT_S
            )
            count = TokenCount.model_validate_json(reply.data)
        except (nats.errors.Error, ValidationError) as error:
            # Nobody could count in time: the agent itself checks again, and answers with the same error.
            log.warning("prompt not counted", model=model, why=str(error))
            return
        if count.prompt_tokens >= count.context_tokens:
            raise ContextExceeded(
                f"{field}: the prompt has {count.prompt_tokens} tokens, "
                f"and {model} has a context of {count.context_tokens}",
                field=field,
            )
