"""The endpoints `choir.count.<model>` and `choir.tokenizer.<model>`: tokens of prompts and texts, for
whoever asks."""

from __future__ import annotations

from schemas import subjects
from schemas.commands import CountTokens, Tokenize
from schemas.errors import UnknownModel
from services.agent.backends import Backend
from services.chassis.nats.endpoints import Caller, Endpoints


class Counting:
    """Answers both with what the first backend of the model says."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._backends: dict[str, list[Backend]] = {}

    async def add(self, model: str, backend: Backend) -> None:
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

    def remove(self, model: str, backend: Backend) -> None:
        """It cannot count any more."""
        self._backends[model].remove(backend)
