"""External workers: HTTP servers that a user has registered, and what becomes of them.

A worker is one model on one server. Several workers of one model are one model of the mesh: whichever has
a free slot takes the next task.
"""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.errors import ErrorBody
from schemas.message import Act, Message, Name, Struct, field_error

WorkerType = Literal["ollama", "lm_studio", "exo", "llama_server", "llama_cpp_python", "vllm", "openai"]
WORKER_TYPES: tuple[WorkerType, ...] = (
    "ollama",
    "lm_studio",
    "exo",
    "llama_server",
    "llama_cpp_python",
    "vllm",
    "openai",
)

DEFAULT_PORTS: dict[WorkerType, int] = {
    "ollama": 11434,
    "lm_studio": 1234,
    "exo": 52415,
    "llama_server": 8080,
    "llama_cpp_python": 8000,
    "vllm": 8000,
    "openai": 443,
}

MAX_WEIGHT = 10

WorkerId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]

CircuitState = Literal["closed", "open", "half_open"]
"""`closed`: it is given work. `open`: it is not. `half_open`: it is being tried."""


class Worker(Message):
    """One model on one HTTP server, as a user registered it.

    `model` is what the server calls it, `served_as` its name in the mesh (the same if left out). `slots` is
    how many requests it takes at once; `weight` (1 to 10) how often it is next when several are free.
    `only_on` names the one host whose agents may use it: an address such as 127.0.0.1 means something else
    everywhere else. `key_variable` names an API key among those that the operator of the agent's host has
    bound to servers (`[workers.keys]`); keys themselves are not stored. A `cordoned` worker finishes what it
    has and gets nothing new.
    """

    id: WorkerId
    type: WorkerType
    host: HostName
    port: Annotated[int, Field(ge=1, le=65_535)]
    model: Name
    served_as: Name | None = None
    slots: Annotated[int, Field(ge=1, le=256)] = 1
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] = 1
    context_tokens: Annotated[int, Field(ge=32)] | None = None
    tls: bool = False
    key_variable: Variable | None = None
    only_on: str | None = None
    cordoned: bool = False

    @property
    def name(self) -> str:
        """The model's name in the mesh."""
        return self.served_as or self.model

    @property
    def url(self) -> str:
        """Where the server is: scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


class WorkerState(Struct):
    """How a worker does, in the lease of the agent that uses it."""

    id: WorkerId
    type: WorkerType
    url: str
    circuit: CircuitState = "closed"
    failures: Annotated[int, Field(ge=0)] = 0
    weight: int = 1
    cordoned: bool = False
    last_error: ErrorBody | None = None
    last_error_at_s: float | None = None
    checked_at_s: float | None = None


class ManageWorkers(Message):
    """A client lists the external workers, or changes one of them.

    `add` takes a whole `worker`, whose id must be new unless `replace` is set; `cordon`, `uncordon` and
    `remove` take the `id` of one that is there. A worker in the name of a model that agents serve by
    themselves would get its prompts, and give its answers: it is only taken with `share`.
    """

    action: Literal["list", "add", "cordon", "uncordon", "remove"] = "list"
    worker: Worker | None = None
    id: WorkerId | None = None
    replace: bool = False
    share: Annotated[bool, Field(exclude_if=not_)] = False

    @model_validator(mode="after")
    def _consistent(self) -> ManageWorkers:
        if (self.action == "add") != (self.worker is not None):
            raise field_error("worker", "add, and nothing else, needs a worker")
        if (self.action in ("cordon", "uncordon", "remove")) != (self.id is not None):
            raise field_error("id", "cordon, uncordon and remove, and nothing else, need an id")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        target = self.id if self.worker is None else self.worker.id
        return None if self.action == "list" else Act(self.action, target)


class WorkerStatus(Struct):
    """A registered worker, and how it does: without `held_by` no agent uses it at present."""

    worker: Worker
    held_by: str | None = None
    slots: int = 0
    busy: int = 0
    tokens_per_s: float | None = None
    state: WorkerState | None = None
    problem: ErrorBody | None = None


class WorkersReply(Message):
    """All registered workers, in the order of their ids; `left_out` counts those that had no room."""

    workers: tuple[WorkerStatus, ...]
    left_out: int | None = None
