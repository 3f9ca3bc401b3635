"""The lease of a service instance: what it says of itself. It vanishes when the instance does."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field

from schemas.errors import ErrorBody
from schemas.message import Message, Name, Struct, is_none
from schemas.nodes.workers import WorkerState
from schemas.pipelines.plan import StageOffer
from schemas.requests.origin import MOST_TOLD

CLOCK_TOLERANCE_S = 3.0
"""How far a host's clock may be from the broker's before people are told."""

NodeState = Literal["starting", "ready", "broken", "draining"]


Capability = Literal["completion", "tools", "thinking", "embedding", "vision", "raw", "scoring", "tokenizing"]
"""What a model can do where it is served: answer messages, call tools, think apart from its answer, give
vectors, see images, go on with a text as it stands, score one, tell its tokens."""


class Gpu(Struct):
    """A graphics processor of the host."""

    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    utilization_percent: float


class OnDemand(Struct):
    """How an agent has a model of the store, which it loads when somebody asks for it.

    Loaded it takes `memory_bytes`, of the `budget_bytes` that the agent has for all of them. It is unloaded
    at `unload_at_s` of its host's clock if nobody asks before; without that as soon as another model needs
    the room. `loads` counts how often it was loaded since the agent began.
    """

    state: Literal["unloaded", "loading", "loaded", "unloading"]
    memory_bytes: Annotated[int, Field(ge=0)]
    budget_bytes: Annotated[int, Field(ge=0)]
    loads: Annotated[int, Field(ge=0)] = 0
    unload_at_s: float | None = None


class LoadingOffer(Struct):
    """What an agent has for models on demand: `budget_bytes` of memory for all that are loaded at a time. It
    loads what the store of this instance holds, or `models` of that where there are some."""

    store: Name
    budget_bytes: Annotated[int, Field(ge=0)]
    models: tuple[Name, ...] = ()


class StoreOffer(Struct):
    """What a store has for copies: the bytes that it may still write to its disk."""

    free_bytes: Annotated[int, Field(ge=0)]


class ServedModel(Struct):
    """A model that an agent serves, itself or through an external `worker`.

    `file` is the name of its file without the folder, `quantisation` how most of its weights are stored
    ("Q8_0"). `capabilities` are its `Capability`s as far as they are known; none are, if it is empty. With a
    `problem` it cannot be asked at present. `identity` is the same for the same weights, wherever they lie,
    and another for others; None where nobody knows. Without `on_demand` it is loaded as long as its agent
    lives. `repository` is that of the hub that it comes from. `prefixes` are blocks of prompts whose caches
    its agent keeps, as `Origin` has them: agents tell them one another, and a router nobody.
    """

    name: Name
    backend: str
    slots: Annotated[int, Field(ge=0)]
    busy: Annotated[int, Field(ge=0)] = 0
    context_tokens: int | None = None
    parameters: int | None = None
    file: str | None = None
    size_bytes: int | None = None
    quantisation: str | None = None
    tokens_per_s: float | None = None
    description: str | None = None
    capabilities: tuple[str, ...] = ()
    worker: WorkerState | None = None
    problem: ErrorBody | None = None
    identity: Annotated[str | None, Field(exclude_if=is_none)] = None
    on_demand: Annotated[OnDemand | None, Field(exclude_if=is_none)] = None
    repository: Annotated[str | None, Field(exclude_if=is_none)] = None
    prefixes: Annotated[tuple[str, ...], Field(max_length=MOST_TOLD, exclude_if=not_)] = ()


class TenantLoad(Struct):
    """Requests of a tenant that a router has let in and that have no result; `batch` are of that class."""

    in_flight: Annotated[int, Field(ge=0)] = 0
    batch: Annotated[int, Field(ge=0)] = 0


class NodeLease(Message):
    """One service instance, as of `seen_at_s`.

    `host_id` tells hosts of one name apart; whoever `choir up` has not started has none.
    `clock_ahead_s` is how far its host's clock is ahead of the broker's, None if that is not known.
    `seen_at_s` and `started_at_s` are of the host's own clock.
    An agent that `loads` models on demand says from which store, and a `store` what room it has.
    A router tells what it has let in of each of its `tenants`.
    `cordon` is what somebody has ordered for the instance or its host: a router adds it. An agent that
    `rests` has heard of it, and pulls nothing new.
    """

    service: Name
    instance: Name
    host: str
    pid: int
    version: str
    state: NodeState
    started_at_s: float
    seen_at_s: float
    clock_ahead_s: float | None = None
    host_id: str | None = None
    models: tuple[ServedModel, ...] = ()
    slots: int = 0
    busy: int = 0
    load_average: float = 0.0
    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    host_memory_free_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()
    stage: StageOffer | None = None
    loads: Annotated[LoadingOffer | None, Field(exclude_if=is_none)] = None
    store: Annotated[StoreOffer | None, Field(exclude_if=is_none)] = None
    problem: ErrorBody | None = None
    cordon: Annotated[Literal["cordon", "drain"] | None, Field(exclude_if=is_none)] = None
    rests: Annotated[bool, Field(exclude_if=not_)] = False
    tenants: Annotated[dict[str, TenantLoad], Field(exclude_if=not_)] = Field(default_factory=dict)

    @property
    def drained(self) -> bool:
        """Whether a cordon is around it and nothing is in work or held here: it may be stopped."""
        if self.cordon is None:
            return False
        if self.stage is not None:
            return self.stage.held is None
        return self.service != "agent" or (self.rests and not self.busy)
