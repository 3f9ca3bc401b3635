"""`choir up --shard MODEL=N`: the settings of a host, with a pipeline of its own stages for a model.

The model is one of choir.toml's agents, `demo:NAME`, or a GGUF file. It then runs in the pipeline and in no
agent of this host.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.host.parts.pipelines import PipelineSection
from infra.settings import DEMO_PREFIX, HostSettings, resolve_models
from schemas.errors import InvalidRequest
from schemas.pipelines.plan import MAX_STAGES
from services.agent.settings import AgentSection, ModelSection
from services.shard_stage.settings import StageModelSection, StageSection

GGUF_SUFFIX = ".gguf"


@dataclass(frozen=True)
class ShardOption:
    """`MODEL=N` of the command line."""

    model: str
    stages: int

    @classmethod
    def parse(cls, text: str) -> ShardOption:
        """Reads `demo:choir-llama=2`; InvalidRequest says what is wrong with it."""
        model, _, count = text.rpartition("=")
        if not model or not count.isdecimal() or not 1 <= int(count) <= MAX_STAGES:
            raise InvalidRequest(
                f"--shard: {text!r} is not MODEL=N with a number of stages from 1 to {MAX_STAGES}, "
                f"such as {DEMO_PREFIX}choir-llama=2",
                field="shard",
            )
        return cls(model, int(count))


def with_shards(settings: HostSettings, shards: Iterable[ShardOption], standbys: int) -> HostSettings:
    """The settings with stages and a pipeline for each model, and without its agents.

    The number of stages was said in so many words, so it is forced: a split that only slows down is made.
    """
    for shard in shards:
        settings = _with_shard(settings, shard, standbys)
    return settings


def _with_shard(settings: HostSettings, shard: ShardOption, standbys: int) -> HostSettings:
    model = _served_here(settings, shard.model) or _named_file(settings, shard.model)
    assert model.path is not None
    offered: dict[str, Any] = {"name": model.name, "path": model.path, "sha256": model.sha256}
    if model.context_tokens is not None:
        offered["context_tokens"] = model.context_tokens
    stages = StageSection(
        name=f"{socket.gethostname()}-{model.name}",
        models=(StageModelSection(**offered),),
        replicas=shard.stages,
        standbys=standbys,
    )
    pipeline = PipelineSection(
        model=model.name,
        stages=shard.stages,
        force=True,
        slots=model.slots,
        context_tokens=model.context_tokens,
    )
    return resolve_models(
        settings.model_copy(
            update={
                "agents": tuple(_agents_without(settings.agents, model.name)),
                "stages": (*settings.stages, stages),
                "pipelines": (*settings.pipelines, pipeline),
            }
        )
    )


def _served_here(settings: HostSettings, name: str) -> ModelSection | None:
    models = (model for agent in settings.agents for model in agent.models if model.path is not None)
    return next((model for model in models if model.name == name), None)


def _named_file(settings: HostSettings, name: str) -> ModelSection:
    """A demo model or a file, served under its own name; relative to the working directory, as on any
    command line."""
    if name.startswith(DEMO_PREFIX):
        own = name.removeprefix(DEMO_PREFIX)
        return _served_here(settings, own) or ModelSection(name=own, path=Path(name))
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        known = sorted(model.name for agent in settings.agents for model in agent.models if model.path)
        raise InvalidRequest(
            f"--shard: {name!r} is neither a model of choir.toml ({', '.join(known) or 'it has none'}), nor "
            f"{DEMO_PREFIX}NAME, nor a file",
            field="shard",
        )
    return ModelSection(name=path.name.removesuffix(GGUF_SUFFIX), path=path)


def _agents_without(agents: Iterable[AgentSection], model: str) -> Iterable[AgentSection]:
    for agent in agents:
        left = tuple(served for served in agent.models if served.name != model)
        if left:
            yield agent.model_copy(update={"models": left})
