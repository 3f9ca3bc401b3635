"""Results that answer equal requests: which requests may have such, and those that this gateway keeps itself.

Only what has the same answer each time may: temperature 0, or a seed of the client's own. The mesh shares
results between all gateways (`Ask.cache`); what a gateway has in its own memory it need not ask for at all.

A result is kept as the JSON that it came as: as an object it takes several times the memory.
"""

from __future__ import annotations

from schemas.commands import Ask
from schemas.errors import InvalidRequest
from schemas.replies import Result
from services.gateway.requests.identity import seed_of
from services.gateway.requests.kept import Kept

CACHE_FIELDS = ("cache", "cache_settled")


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


def without_cache(ask: Ask, error: InvalidRequest) -> Ask:
    """The same request for a router that is older than this gateway, and has refused the field `cache` or
    `cache_settled`; what it has refused otherwise is raised again."""
    if not ask.cache or error.field not in CACHE_FIELDS:
        raise error
    return ask.model_copy(update=dict.fromkeys(CACHE_FIELDS, False))


class ResultCache:
    """Results of single models among what is kept in this gateway's memory, each for its tenant, and for
    `keep_s`."""

    def __init__(self, kept: Kept, keep_s: float) -> None:
        self._kept = kept
        self._keep_s = keep_s

    def get(self, tenant: str, ask: Ask, identity: str | None) -> tuple[Result, float] | None:
        """The result of an equal request of the tenant to the same weights, and until when it is kept; None
        if it is not here."""
        found = self._kept.get((tenant, ask.fingerprint, identity))
        return None if found is None else (Result.read(found[0]), found[1])

    def put(self, tenant: str, ask: Ask, result: Result, identity: str | None) -> None:
        """Keeps a result. What an ensemble says depends on who is in it: that is left to the mesh."""
        if result.topology == "single":
            data = result.to_bytes()
            key = (tenant, ask.fingerprint, identity)
            self._kept.put(key, data, len(data), self._kept.now() + self._keep_s)
