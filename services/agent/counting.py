"""The endpoints `choir.count.<model>` and `choir.tokenizer.<model>`: tokens of prompts and texts, for
whoever asks."""

from __future__ import annotations

from typing import Protocol

from schemas import subjects
from schemas.commands import ChatMessage, CountTokens, Tokenize
from schemas.errors import UnknownModel
from schemas.replies import TokenCount, Tokenized
from schemas.requests.chat import Tool
from services.chassis.nats.endpoints import Caller, Endpoints


class TokenCounter(Protocol):
    """What knows the tokens of one model."""

    async def count_tokens(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()
    ) -> TokenCount:
        """How long a prompt is for this model."""

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """Tokens of a text, the text of tokens, or what is known of the tokenizer."""


class Counting:
    """Answers both with what the first backend of the model says."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._backends: dict[str, list[TokenCounter]] = {}

    async def add(self, model: str, backend: TokenCounter) -> None:
        """One more that can count for `model`."""
        if model in self._backends:
            self._backends[model].append(backend)
            return
        backends = self._backends.setdefault(model, [backend])

        async def count(request: CountTokens, caller: Caller) -> None:
            if not backends:
                raise UnknownModel(f"nobody here serves {model} any more", field="model")
            await caller.send(await backends[0].count_tokens(request.messages, request.tools))

        async def tokenize(request: Tokenize, caller: Caller) -> None:
            if not backends:
                raise UnknownModel(f"nobody here serves {model} any more", field="model")
            await caller.send(await backends[0].tokenize(request))

        await self._endpoints.add(subjects.count_tokens(model), CountTokens, count)
        await self._endpoints.add(subjects.tokenizer(model), Tokenize, tokenize)

    def remove(self, model: str, backend: TokenCounter) -> None:
        """It cannot count any more."""
        self._backends[model].remove(backend)
