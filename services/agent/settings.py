"""Settings of an agent: one entry of `[[agents]]`, handed over in the environment as `CHOIR_AGENT`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, StringConstraints, model_validator

from schemas.message import Name
from schemas.nodes.workers import Variable, WorkerType
from services.chassis.settings import Section, ServiceSettings

BACKENDS: dict[str, str] = {
    "llama_cpp": "services.agent.backends.llama_cpp",
    "instant": "services.agent.backends.instant",
    "ollama": "services.agent.backends.servers.ollama",
    "openai": "services.agent.backends.servers.openai",
}
"""The module of each backend; its `open_backend` loads a model. Imported only by the agents that use it."""


def _is_backend(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{name} is no backend; there are {', '.join(BACKENDS)}")
    return name


BackendName = Annotated[str, AfterValidator(_is_backend)]
STEP_LIMIT_S = 120.0
KEEPING: tuple[BackendName, ...] = ("llama_cpp",)
"""Backends of which it is known what their caches keep."""
REMOTE: tuple[BackendName, ...] = ("ollama", "openai")

RESERVED_PREFIX = "CHOIR_"

ServerOrigin = Annotated[str, StringConstraints(pattern=r"^https?://[^/@\s]+/?$", to_lower=True)]
"""Scheme, host and port of a server; the port may be left out where it is the usual one."""


class KeySection(Section):
    """An entry of `[workers.keys]`: an API key, and the servers that it may be sent to.

    It is in the environment `variable` of `choir up`, or in a `file`, relative to choir.toml. `hosts` are
    written with their scheme: a key goes over plain http only where it is written so.
    """

    variable: Variable | None = None
    file: Path | None = None
    hosts: tuple[ServerOrigin, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> KeySection:
        if (self.variable is None) == (self.file is None):
            raise ValueError("it needs either variable or file: where the key is")
        if self.variable is not None and self.variable.upper().startswith(RESERVED_PREFIX):
            raise ValueError(
                f"{self.variable} is a setting of Choir and no key for a server: take another variable"
            )
        return self


class ServerSection(Section):
    """An HTTP server that has a model: what kind it is, and where.

    `model` is what the server calls the model, if that is not the model's name in the mesh. `key_variable`
    names a key of `[workers.keys]`. A server that says nothing for `stall_limit_s`, in the midst of a text or
    before it, is cut off.
    """

    type: WorkerType
    url: str = Field(pattern=r"^https?://[^/\s]+/?$")
    model: Name | None = None
    key_variable: Variable | None = None
    connect_limit_s: float = Field(default=3.0, gt=0, le=60)
    stall_limit_s: float = Field(default=120.0, gt=0, le=3600)
    _key: SecretStr | None = PrivateAttr(default=None)

    @property
    def key(self) -> str | None:
        """The API key itself, once somebody has seen to it that this server may have it."""
        return None if self._key is None else self._key.get_secret_value()

    def with_key(self, key: str) -> ServerSection:
        """The same server, with its API key."""
        server = self.model_copy()
        server._key = SecretStr(key)
        return server


class ModelSection(Section):
    """One model of an agent.

    `path` is a GGUF file (`llama_cpp`), or the first part of a split one, refused if it has not the checksum
    `sha256`, where one is given; that of a split one is of all parts, one after another.
    `server` is where it is served (`ollama`, `openai`).
    `reply` and `delay_ms` are what the `instant` backend says and after how long. `context_tokens` is per
    sequence and defaults to what the model was made for. A step of its inference (`llama_cpp`: one token of
    each sequence, or up to 512 tokens of prompts) that takes longer than `step_limit_s` counts as one that
    never ends: the agent ends then, and is started anew. Steps have fewer than the agent's `threads` where
    those are faster, as beside other programs, unless `fixed_threads` (`llama_cpp`).
    """

    name: Name
    path: Path | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    slots: int = Field(default=4, ge=1, le=256)
    context_tokens: int | None = Field(default=None, ge=32)
    gpu_layers: int = Field(default=0, ge=-1)
    step_limit_s: float = Field(default=STEP_LIMIT_S, gt=0, le=86_400)
    fixed_threads: bool = False
    server: ServerSection | None = None
    reply: str = "ok"
    delay_ms: float = Field(default=0.0, ge=0)


class OnDemandSection(Section):
    """`on_demand` of an entry of `[[agents]]`: it loads models of the store when somebody asks for them.

    They are those that the store of its host holds, or `models` of them. All that are loaded take at most
    `memory_bytes`, by default half of what the machine has; or most of what its GPUs have with `gpu_layers`
    -1, and both with some layers there. One that nobody asks any more is unloaded after
    `keep_alive_s`, with -1 only when another one needs its room; a request may say otherwise. Who waits for a
    model that does not fit beside those that are asked all the time waits for `wait_limit_s`, and then one of
    these is given up. `slots`, `context_tokens`, `gpu_layers`, `step_limit_s` and `fixed_threads` are as in
    `models`, for each of them. `store` is the instance of the store; `choir up` says it.
    """

    models: tuple[Name, ...] = ()
    memory_bytes: int | None = Field(default=None, ge=1)
    keep_alive_s: float = Field(default=300.0, ge=-1, le=10_000_000)
    wait_limit_s: float = Field(default=15.0, ge=0, le=3600)
    slots: int = Field(default=2, ge=1, le=256)
    context_tokens: int | None = Field(default=None, ge=32)
    gpu_layers: int = Field(default=0, ge=-1)
    step_limit_s: float = Field(default=STEP_LIMIT_S, gt=0, le=86_400)
    fixed_threads: bool = False
    store: Name | None = None


class AgentSection(Section):
    """`[[agents]]`: a process that serves models through one backend, and takes its part of the external
    workers (see `[workers]`). One without models of its own serves only those, and what it loads on
    demand.

    A task waits for an agent that keeps more of its beginning in its cache (`llama_cpp`, and models that are
    loaded all the time), for the part `prefix_wait` of the time that computing this beginning takes here;
    with 0 no task waits, and nobody is told what is kept here."""

    name: Name
    backend: BackendName = "llama_cpp"
    models: tuple[ModelSection, ...] = ()
    on_demand: OnDemandSection | None = None
    threads: int | None = Field(default=None, ge=1, le=256)
    replicas: int = Field(default=1, ge=0, le=64)
    prefix_wait: float = Field(default=0.5, ge=0, le=10)

    @property
    def known_models(self) -> tuple[str, ...]:
        """The names of all models that it may serve, as far as the file has them."""
        loaded = () if self.on_demand is None else self.on_demand.models
        return (*(model.name for model in self.models), *loaded)

    @property
    def hands_over(self) -> bool:
        """Whether its tasks may go to agents that keep their beginnings."""
        return self.backend in KEEPING and self.prefix_wait > 0

    @property
    def loads_any(self) -> bool:
        """Whether it loads whatever the store holds."""
        return self.on_demand is not None and not self.on_demand.models

    @model_validator(mode="after")
    def _complete(self) -> AgentSection:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"agent {self.name} names a model twice")
        if self.on_demand is not None:
            if self.backend != "llama_cpp":
                raise ValueError(f"agent {self.name}: on_demand needs backend llama_cpp")
            if twice := sorted(set(names) & set(self.on_demand.models)):
                raise ValueError(f"agent {self.name} has {', '.join(twice)} in models and in on_demand")
        for model in self.models:
            if self.backend == "llama_cpp" and model.path is None:
                raise ValueError(f"model {model.name} of agent {self.name} needs a path")
            if self.backend in REMOTE:
                _check_server(self.backend, model)
        return self


def _check_server(backend: BackendName, model: ModelSection) -> None:
    if model.server is None:
        raise ValueError(f"model {model.name} needs server = {{ type, url }} for backend {backend}")
    if (model.server.type == "ollama") != (backend == "ollama"):
        raise ValueError(
            f"model {model.name}: a server of type {model.server.type} is not for backend {backend}"
        )


def _is_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text} is no network; write one as 192.168.0.0/16 or fd00::/8") from error
    return text


NetworkName = Annotated[str, AfterValidator(_is_network)]


class WorkersSection(Section):
    """`[workers]`: what agents do with the external workers that users register.

    Each is looked at every `check_interval_s`, and has `check_limit_s` to answer. `failures_to_open` failures
    in a row, of looks or of tasks, take it out. After `open_for_s`, and twice as long each time up to
    `open_for_longest_s`, it is tried with a generation of one token (`trial_limit_s`), and let in again if
    that succeeds. After a failed task it stands back for `stand_back_s`, so that another takes the task up.
    `keys` are what a registration may name as its `key_variable`. `networks` are where workers may be, such
    as ["192.168.0.0/16", "127.0.0.0/8"]; without any they may be everywhere but at link-local addresses and
    those where clouds keep secrets, which are never asked. Servers of `keys` are allowed by their names.
    """

    enabled: bool = True
    networks: tuple[NetworkName, ...] = ()
    keys: dict[Variable, KeySection] = Field(default_factory=dict)
    check_interval_s: float = Field(default=5.0, gt=0, le=3600)
    check_limit_s: float = Field(default=5.0, gt=0, le=600)
    trial_limit_s: float = Field(default=60.0, gt=0, le=3600)
    failures_to_open: int = Field(default=3, ge=1, le=100)
    open_for_s: float = Field(default=5.0, gt=0, le=3600)
    open_for_longest_s: float = Field(default=60.0, gt=0, le=86_400)
    stand_back_s: float = Field(default=1.0, ge=0, le=60)
    connect_limit_s: float = Field(default=3.0, gt=0, le=60)
    stall_limit_s: float = Field(default=120.0, gt=0, le=3600)


class AgentSettings(ServiceSettings):
    """What an agent can be told."""

    agent: AgentSection
    workers: WorkersSection = WorkersSection()
