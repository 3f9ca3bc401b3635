"""The models that a batch is spread over: how much room each has, and which one takes the next question."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from schemas.errors import UnknownModel
from schemas.replies import ModelSummary
from services.client.client import Choir

LOOK_EVERY_S = 5.0
QUEUED_PER_SLOT = 1.5
"""How many questions a slot has on its way: when one is answered the next is there already."""
DEFAULT_CONTEXT_TOKENS = 2_048
"""What a model is taken to hold whose server does not say."""


class Models:
    """The models that may be asked, as the mesh shows them now and then.

    `names` are those that are wanted; without any, all that the mesh has. `watch` keeps the view fresh.
    """

    def __init__(self, mesh: Choir, names: Sequence[str] = (), max_concurrent: int | None = None) -> None:
        self._mesh = mesh
        self._names = tuple(names)
        self._max_concurrent = max_concurrent
        self._live: dict[str, ModelSummary] = {}
        self._asking: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    async def look(self) -> None:
        """Sees which models are there; UnknownModel, with those that are, if none of the wanted ones is."""
        there = {model.name: model for model in await self._mesh.models() if model.slots}
        live = {name: there[name] for name in self._names or sorted(there) if name in there}
        if not live:
            raise self._unknown(there)
        self._live = live

    async def watch(self) -> None:
        """Looks again and again; models that come, go or get other slots change the room there is."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except UnknownModel:
                continue  # those that were there may come back; questions to them wait or fail by themselves

    async def require_all(self) -> None:
        """Looks, and raises UnknownModel for a wanted model that is not there."""
        await self.look()
        if not self._live.keys() >= set(self._names):
            raise self._unknown(self._live)

    def _unknown(self, there: Iterable[str]) -> UnknownModel:
        known = tuple(sorted(there))
        missing = [name for name in self._names if name not in known]
        said = f"no live agent serves {missing[0]}" if missing else "no live agent serves any model"
        return UnknownModel(f"{said}; there are: {', '.join(known) or 'none'}", field="model", known=known)

    def room(self) -> int:
        """How many questions should be on their way."""
        if self._max_concurrent is not None:
            return self._max_concurrent
        return max(2, round(QUEUED_PER_SLOT * sum(model.slots for model in self._live.values())))

    def serves(self, name: str) -> bool:
        """Whether a model may be asked now."""
        return name in self._live

    def context_tokens(self, name: str) -> int:
        """How many tokens of prompt and answer a model holds."""
        model = self._live.get(name)
        return (model and model.context_tokens) or DEFAULT_CONTEXT_TOKENS

    def next(self) -> str:
        """The model with the fewest questions on their way for its slots; of equals the least asked."""

        def burden(name: str) -> tuple[float, int]:
            return (self._asking[name] + 1) / self._live[name].slots, self._asked[name]

        chosen = min(self._live, key=burden)
        self._asked[chosen] += 1
        return chosen

    @contextmanager
    def asking(self, name: str) -> Iterator[None]:
        """Counts a question to a model while it is on its way."""
        self._asking[name] += 1
        try:
            yield
        finally:
            self._asking[name] -= 1
