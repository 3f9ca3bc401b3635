"""Settings of an agent: one entry of `[[agents]]`, handed over in the environment as `CHOIR_AGENT`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from schemas.message import Name
from services.chassis.settings import Section, ServiceSettings

BackendName = Literal["llama_cpp", "instant"]


class ModelSection(Section):
    """One model of an agent.

    `path` is a GGUF file (`llama_cpp`), refused if it has not the checksum `sha256`, where one is given.
    `reply` and `delay_ms` are what the `instant` backend says and after how long. `context_tokens` is per
    sequence and defaults to what the model was made for.
    """

    name: Name
    path: Path | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    slots: int = Field(default=4, ge=1, le=256)
    context_tokens: int | None = Field(default=None, ge=32)
    gpu_layers: int = Field(default=0, ge=-1)
    reply: str = "ok"
    delay_ms: float = Field(default=0.0, ge=0)


class AgentSection(Section):
    """`[[agents]]`: a process that serves one or more models through one backend."""

    name: Name
    backend: BackendName = "llama_cpp"
    models: tuple[ModelSection, ...] = Field(min_length=1)
    threads: int | None = Field(default=None, ge=1, le=256)
    replicas: int = Field(default=1, ge=0, le=64)

    @model_validator(mode="after")
    def _complete(self) -> AgentSection:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"agent {self.name} names a model twice")
        for model in self.models:
            if self.backend == "llama_cpp" and model.path is None:
                raise ValueError(f"model {model.name} of agent {self.name} needs a path")
        return self


class AgentSettings(ServiceSettings):
    """What an agent can be told."""

    agent: AgentSection
