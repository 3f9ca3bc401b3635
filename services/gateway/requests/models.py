"""The models that clients can name: those that live agents serve, and ensembles of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.errors import ChoirError, UnknownModel
from schemas.replies import ModelsReply, ModelSummary
from services.client.client import Choir
from services.gateway.access.caller import NOBODY, Caller, current_caller
from services.gateway.requests.ensembles import Ensemble, ensembles, with_tag, without_tag
from services.gateway.requests.hub_names import hub_name, is_meant

FRESH_S = 1.0
"""How old a list may be that is shown."""
KNOWN_S = 10.0
"""How old it may be for a name that stands in it: the router looks again."""
AHEAD_S = 5.0
"""At this age a list in use is read anew, so that no request waits for that."""
SETTLED_S = 10.0
"""So long who changes the list waits for it: a router hears of a change a moment later."""
LOOK_S = 0.05
IN_USE_S = 120.0
"""So long after the last request nothing is read ahead any more."""


@dataclass(frozen=True)
class Target:
    """What a name of a model stands for: one model, or an ensemble and its `members`.

    `name` has a tag (`choir-qwen:latest`); `plain_name` has none that says nothing.
    """

    name: str
    plain_name: str
    members: tuple[ModelSummary, ...]
    ensemble: Ensemble | None = None

    @property
    def ask_fields(self) -> dict[str, Any]:
        """The fields of an `Ask` that say who is to answer."""
        if self.ensemble is None:
            return {"model": self.members[0].name}
        if self.ensemble.named:
            return {"model": self.ensemble.name}
        models = () if self.ensemble.members is None else tuple(member.name for member in self.members)
        return {"models": models, "strategies": (self.ensemble.strategy,)}

    @property
    def streams(self) -> bool:
        """Whether a text comes in pieces: an ensemble has none before it has decided, and of a model that is
        not there nobody knows."""
        return self.ensemble is None and any(member.slots for member in self.members)

    @property
    def thinks(self) -> bool:
        """Whether all members may think apart from their answer: nothing is known of one that says nothing
        of what it can."""
        return all(not m.capabilities or "thinking" in m.capabilities for m in self.members)

    @property
    def context_tokens(self) -> int | None:
        """The smallest context among the members; None if nobody says."""
        return min((m.context_tokens for m in self.members if m.context_tokens is not None), default=None)


def absent(name: str) -> Target | None:
    """What a name stands for of which nothing is known at present; None for what can be no name."""
    plain = without_tag(name)
    try:
        model = ModelSummary(name=plain, agents=(), slots=0, busy=0)
    except ValidationError:
        return None
    return Target(with_tag(name), plain, (model,))


class ModelList:
    """The models of the mesh, as they were a moment ago (in seconds of `now`)."""

    def __init__(
        self, mesh: Choir, sets: Mapping[str, Sequence[str]], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._mesh = mesh
        self._now = now
        self._used_s = float("-inf")
        self._ensembles = tuple(ensembles(sets))
        self._targets: dict[str, Target] = {}
        self._as_of_s = float("-inf")
        self._reading = asyncio.Lock()

    async def all(self) -> tuple[Target, ...]:
        """Models first, then ensembles; those that the caller may ask. Raises MeshUnreachable."""
        await self._refresh(FRESH_S)
        caller = current_caller.get()
        return tuple(target for target in self._targets.values() if caller.may_ask(target.plain_name))

    async def find(self, name: str, missing: Callable[[str], Exception] | None = None) -> Target:
        """What a name stands for, with or without `:latest`, if the caller may ask it.

        Raises MeshUnreachable, and for a name of nothing UnknownModel, or what `missing` makes of it.
        """
        return await self._find(name, missing, current_caller.get())

    async def known(self, name: str) -> Target:
        """The same, whoever the caller is."""
        return await self._find(name, None, NOBODY)

    def at_hand(self, name: str) -> Target | None:
        """The same without a wait, if it is known well enough that the caller may ask it."""
        self._used_s = self._now()
        if not self._is_fresh(KNOWN_S):
            return None
        found = self._targets.get(name) or self._targets.get(without_tag(name))
        return found if found is not None and current_caller.get().may_ask(found.plain_name) else None

    def identity(self, name: str | None) -> str | None:
        """What was served under a name when it was looked up last; None if nobody knows."""
        target = self._targets.get(without_tag(name or ""))
        return target.members[0].identity if target is not None else None

    async def _find(self, name: str, missing: Callable[[str], Exception] | None, caller: Caller) -> Target:
        plain = without_tag(name)
        self._used_s = self._now()
        for age_s in (KNOWN_S, FRESH_S):
            await self._refresh(age_s)
            found = self._targets.get(name) or self._targets.get(plain) or self._of_hub(plain)
            if found is not None and caller.may_ask(found.plain_name):
                return found
        if missing is not None:
            raise missing(name)
        known = tuple(name for name, target in self._targets.items() if caller.may_ask(target.plain_name))
        raise UnknownModel(f"model '{name}' not found", field="model", known=known)

    def _of_hub(self, name: str) -> Target | None:
        """The one model that came from a hub under a name."""
        hub = hub_name(name)
        if hub is None:
            return None
        members = ((target, target.members[0]) for target in self._targets.values() if not target.ensemble)
        found = [target for target, one in members if is_meant(hub, one.repository, one.file)]
        return found[0] if len(found) == 1 else None

    async def settle(self, name: str, *, there: bool) -> None:
        """Reads the list until a name is in it, or is not, so that who has changed that finds it so; not for
        longer than `SETTLED_S`. Raises MeshUnreachable."""
        end_s = self._now() + SETTLED_S
        while True:
            await self._read()
            if (name in self._targets) == there or self._now() > end_s:
                return
            await asyncio.sleep(LOOK_S)

    def expire(self) -> None:
        """There are other models than before: whoever asks next is told of them."""
        self._as_of_s = float("-inf")

    async def keep_fresh(self) -> None:
        """Reads the list anew before it is too old, as long as somebody asks for models. Does not end by
        itself."""
        while True:
            await asyncio.sleep(AHEAD_S / 2)
            await self.read_ahead()

    async def read_ahead(self) -> None:
        """Reads a list in use that will be too old soon. While the mesh does not answer the list stays as it
        is: whoever asks then is told why."""
        if self._is_fresh(AHEAD_S) or self._now() - self._used_s > IN_USE_S:
            return
        with contextlib.suppress(ChoirError):
            await self._read()

    async def _refresh(self, age_s: float) -> None:
        if self._is_fresh(age_s):
            return
        async with self._reading:
            if not self._is_fresh(age_s):
                await self._read()

    async def _read(self) -> None:
        self._targets = self._targets_of(await self._mesh.offered())
        self._as_of_s = self._now()

    def _is_fresh(self, age_s: float) -> bool:
        return self._now() - self._as_of_s <= age_s

    def _targets_of(self, offered: ModelsReply) -> dict[str, Target]:
        served = {model.name: model for model in offered.models if model.slots}
        named = (
            Ensemble(each.name, each.strategies[0], each.members or None, named=True)
            for each in offered.ensembles
        )
        found = {
            without_tag(name): Target(with_tag(name), without_tag(name), (model,))
            for name, model in served.items()
        }
        for ensemble in (*named, *self._ensembles):
            everybody = (name for name, model in served.items() if model.on_demand is None)
            wanted = tuple(everybody) if ensemble.members is None else ensemble.members
            members = tuple(served[name] for name in wanted if name in served)
            if members and (ensemble.named or ensemble.name not in found):
                found[ensemble.name] = Target(with_tag(ensemble.name), ensemble.name, members, ensemble)
        return found
