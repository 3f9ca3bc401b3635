"""Results that answer equal requests: which requests may have such, and those that this gateway keeps itself.

Only what has the same answer each time may: temperature 0, or a seed of the client's own. The mesh shares
results between all gateways (`Ask.cache`); what a gateway has in its own memory it need not ask for at all.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from schemas.commands import Ask
from schemas.replies import Result
from services.gateway.identity import seed_of
from services.gateway.settings import GatewaySection

SHARE_OF_ONE = 0.1
"""A result that takes more of the room than this is not kept."""

Key = tuple[str, str]


def same_each_time(ask: Ask) -> Ask | None:
    """A request whose answer is the same each time it is asked; None for any other.

    Greedy decoding draws nothing, so there a seed that was made of the request's id says nothing, and is left
    out. Vectors are left to their clients.
    """
    if ask.embed is not None:
        return None
    sampling, request_id = ask.sampling, ask.request_id or ""
    seed_is_made = sampling.seed in (seed_of(request_id), seed_of(request_id.rpartition("-")[0]))
    if not seed_is_made:
        return ask
    if sampling.temperature > 0:
        return None
    return ask.model_copy(update={"sampling": sampling.model_copy(update={"seed": 0})})


@dataclass(frozen=True)
class _Kept:
    result: Result
    size: int
    until_s: float


class ResultCache:
    """Results of single models in this gateway's memory, each for its tenant: of `cache_bytes` at most, those
    that were used last, each for `cache_keep_s`."""

    def __init__(self, settings: GatewaySection, now: Callable[[], float] = time.monotonic) -> None:
        self._room = settings.cache_bytes
        self._keep_s = settings.cache_keep_s
        self._now = now
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, tenant: str, ask: Ask) -> Result | None:
        """The result of an equal request of the tenant, if it is here."""
        key = (tenant, ask.fingerprint)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._now() >= kept.until_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.result

    def put(self, tenant: str, ask: Ask, result: Result) -> None:
        """Keeps a result. What an ensemble says depends on who is in it: that is left to the mesh."""
        size = len(result.to_bytes())
        if result.topology != "single" or size > self._room * SHARE_OF_ONE:
            return
        key = (tenant, ask.fingerprint)
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(result, size, self._now() + self._keep_s)
        self.bytes += size
        while self.bytes > self._room:
            self._drop(next(iter(self._kept)))
            self.evicted += 1

    def _drop(self, key: Key) -> None:
        self.bytes -= self._kept.pop(key).size
