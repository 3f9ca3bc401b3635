"""Settings of a stage: one entry of `[[stages]]`, handed over in the environment as `CHOIR_STAGE`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from schemas.message import Name
from services.chassis.settings import Section, ServiceSettings


class StageModelSection(Section):
    """A model of which this instance can hold any slice.

    `path` is the whole model's GGUF file, or `store:NAME` for a model of the store, of which the stage
    fetches the header and its own layers from any host that has them. It is refused if it has not the
    checksum `sha256`, where one is given; that of a split one is of all parts, one after another.
    `context_tokens` is the most of a sequence that this instance makes room for.
    """

    name: Name
    path: Path
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    context_tokens: int = Field(default=4096, ge=32)


class StageSection(Section):
    """`[[stages]]`: a process that holds one stage of a pipeline, or stands by for one.

    `memory_bytes` is the most that weights and cache may take, by default what is free on the host when the
    process starts. With `gpu_layers` -1 both lie on the GPUs that llama.cpp sees, and the default is what is
    free there. `threads` defaults to the cores that it may use: where stages share a host, theirs
    together should be its cores. `choir up` runs `replicas` such processes, and as many more as `standbys`
    that are to take the place of one that dies; they are called NAME-1, NAME-2, ... `cache` is the folder of
    slices, by default `choir/slices` in the user's cache folder. A process in which a single step takes
    longer than `step_limit_s` says so in its lease and ends, to be started anew.
    """

    name: Name
    models: tuple[StageModelSection, ...] = Field(min_length=1)
    threads: int | None = Field(default=None, ge=1, le=256)
    memory_bytes: int | None = Field(default=None, ge=1)
    gpu_layers: Literal[0, -1] = 0
    replicas: int = Field(default=1, ge=0, le=32)
    standbys: int = Field(default=0, ge=0, le=32)
    cache: Path | None = None
    step_limit_s: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> StageSection:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"stage {self.name} names a model twice")
        return self

    @property
    def cache_folder(self) -> Path:
        """Where slices are kept."""
        if self.cache is not None:
            return self.cache
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "choir" / "slices"


class StageSettings(ServiceSettings):
    """Settings of a stage."""

    stage: StageSection
