"""The endpoint `choir.count.<model>`: counts the tokens of a prompt for whoever asks."""

from __future__ import annotations

from schemas import subjects
from schemas.commands import CountTokens
from schemas.errors import UnknownModel
from services.agent.backends import Backend
from services.chassis.nats.endpoints import Caller, Endpoints


class Counting:
    """Answers `choir.count.<model>` with what the first backend of the model says."""

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
            await caller.send(await backends[0].count_tokens(request.messages))

        await self._endpoints.add(subjects.count_tokens(model), CountTokens, count)

    def remove(self, model: str, backend: Backend) -> None:
        """It cannot count any more."""
        self._backends[model].remove(backend)
