"""What of all requests a page shows: by model, strategy, state, tenant and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from schemas.requests.queries import Scalar

STATES = ("open", "answered", "failed")
WITHIN: Mapping[str, float] = {"10 min": 600.0, "1 h": 3_600.0, "1 d": 86_400.0, "7 d": 604_800.0}
USUAL = "1 d"
STEPS = 60
"""So many steps are drawn of the time that is shown."""
LONGEST = 200
CONDITION = """
($state::VARCHAR = '' OR status = $state)
    AND ($model::VARCHAR = '' OR list_contains(models, $model))
    AND ($strategy::VARCHAR = '' OR list_contains(strategies, $strategy))
    AND ($tenant::VARCHAR = '' OR starts_with(request_id, $tenant || '=')
        OR ($tenant = 'local' AND NOT contains(request_id, '=')))
    AND ($id::VARCHAR = '' OR contains(request_id, $id))
    AND accepted_at > now()::TIMESTAMP - to_seconds($within_s::DOUBLE)
"""

REFUSED = """
$state::VARCHAR IN ('', 'failed') AND $model::VARCHAR = '' AND $strategy::VARCHAR = ''
    AND ($tenant::VARCHAR = '' OR tenant = $tenant)
    AND ($id::VARCHAR = '' OR contains(request_id, $id))
    AND "at" > now()::TIMESTAMP - to_seconds($within_s::DOUBLE)
"""
"""The same of what was refused at the door: of that nobody knows the model, nor how it was to be decided."""


@dataclass(frozen=True)
class Filter:
    """Empty where it lets everything through."""

    state: str = ""
    within: str = USUAL
    model: str = ""
    strategy: str = ""
    tenant: str = ""
    id: str = ""

    @classmethod
    def of(cls, said: QueryParams) -> Filter:
        """What of a query is a filter; what is none is passed over."""
        state, within = said.get("state", ""), said.get("within", USUAL)
        texts = {name: said.get(name, "").strip()[:LONGEST] for name in ("model", "strategy", "tenant", "id")}
        return cls(
            state=state if state in STATES else "", within=within if within in WITHIN else USUAL, **texts
        )

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The parameters of `CONDITION`."""
        texts: dict[str, Scalar] = {
            name: getattr(self, name) for name in ("state", "model", "strategy", "tenant", "id")
        }
        return {**texts, "within_s": self.within_s}

    @property
    def within_s(self) -> float:
        """How far back it goes."""
        return WITHIN[self.within]

    @property
    def step_s(self) -> float:
        """How long a step of the charts is."""
        return self.within_s / STEPS

    @property
    def query(self) -> str:
        """The same as a query."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return urlencode({name: value for name, value in named.items() if value})
