"""Does a prompt fit the model's context? Asked at the door, before anything is stored."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from schemas.commands import ChatMessage
from schemas.errors import BrokerUnavailable, ContextExceeded
from services.chassis.logs import get_logger
from services.chassis.registry.directory import Serving
from services.tasks.token_count import certainly_fits, count_tokens

COUNT_TIMEOUT_S = 0.6

log = get_logger("router.context")


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
        try:
            count = await count_tokens(self._client, model, messages, COUNT_TIMEOUT_S)
        except BrokerUnavailable as error:
            # Nobody could count in time: the agent itself checks again, and answers with the same error.
            log.warning("prompt not counted", model=model, why=error.message)
            return
        if count.prompt_tokens >= count.context_tokens:
            raise ContextExceeded(
                f"{field}: the prompt has {count.prompt_tokens} tokens, "
                f"and {model} has a context of {count.context_tokens}",
                field=field,
            )
