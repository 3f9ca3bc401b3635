"""The token budget of a model: whether a text fits, and where it is cut if not, in the model's own tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nats.aio.client import Client

from schemas.commands import ChatMessage
from schemas.errors import BrokerUnavailable, ContextExceeded
from services.chassis.logs import get_logger
from services.chassis.registry.directory import Directory
from services.summarizer.split import split
from services.tasks.token_count import certainly_fits, count_tokens

COUNT_TIMEOUT_S = 2.0
LOOK_INTERVAL_S = 0.25
ANSWER_SHARE = 4
"""A quarter of the context, or what was asked for if that is less, is left for the answer. So the answers for
the parts of a text are together at most a third as long as the text, and reducing comes to an end."""
LEAST_ROOM_TOKENS = 16
CAUTION = 0.9
SMALLER = 0.7

Asking = Callable[[str], tuple[ChatMessage, ...]]
"""Makes the prompt around a text."""

log = get_logger("summarizer.budget")


class TokenBudget:
    """Measures texts for one model and one template. Waits for an agent of the model if there is none."""

    def __init__(
        self, client: Client, directory: Directory, model: str, asking: Asking, max_tokens: int
    ) -> None:
        self._client = client
        self._directory = directory
        self._model = model
        self._asking = asking
        self._max_tokens = max_tokens

    async def answer_tokens(self) -> int:
        """How long an answer may become."""
        context = await self._context()
        return self._max_tokens if context is None else min(self._max_tokens, context // ANSWER_SHARE)

    async def fits(self, text: str) -> bool:
        """Whether the prompt and its answer fit. Where no agent says how much it holds, everything does."""
        room = await self._room()
        if room is None or certainly_fits(self._asking(text), room):
            return True
        return await self._count(text) < room

    async def cut(self, text: str) -> list[str]:
        """A text that does not fit, in parts that do.

        Raises ContextExceeded if the template alone leaves no room for a text.
        """
        room = await self._room()
        if room is None:
            return [text]
        template = await self._count(".")
        if room - template < LEAST_ROOM_TOKENS:
            raise ContextExceeded(
                f"summary_prompt: without any text it has {template} tokens, and {self._model} has room for "
                f"{room}: shorten it, or summarise with a model of a longer context",
                field="summary_prompt",
            )
        per_token = len(text) / max(1, await self._count(text) - template)
        limit = max(1, int((room - template) * per_token * CAUTION))
        return await self._fitting(text, limit)

    async def _fitting(self, text: str, limit: int) -> list[str]:
        """Some parts are denser than the whole: what still does not fit is cut smaller."""
        parts = [part for part in split(text, limit) if part.strip()]
        fit = await asyncio.gather(*map(self.fits, parts))
        smaller = max(1, int(limit * SMALLER))
        fitting: list[str] = []
        for part, fits in zip(parts, fit, strict=True):
            fitting += (
                [part] if fits or len(part) == 1 else await self._fitting(part, min(smaller, len(part) - 1))
            )
        return fitting

    async def _room(self) -> int | None:
        """How many tokens a prompt may have; None if nobody knows."""
        context = await self._context()
        return None if context is None else context - await self.answer_tokens()

    async def _context(self) -> int | None:
        """The smallest context of all agents that may take the task."""
        while True:
            if serving := self._directory.serving().get(self._model):
                contexts = [served.context_tokens for _, served in serving]
                return min((tokens for tokens in contexts if tokens is not None), default=None)
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _count(self, text: str) -> int:
        """Asked again until some agent has counted: the request's deadline ends it."""
        while True:
            try:
                count = await count_tokens(self._client, self._model, self._asking(text), COUNT_TIMEOUT_S)
            except BrokerUnavailable as error:
                log.warning("not counted yet", model=self._model, why=error.message)
                await asyncio.sleep(LOOK_INTERVAL_S)
            else:
                return count.prompt_tokens
