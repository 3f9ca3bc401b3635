"""The whole choir.toml: what one host runs of the mesh.

Each service reads its own section of the same file (`services/*/settings.py`); this is the only place
where the file is read as a whole, so a section or key that nobody knows is found here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from infra.demo_models import checksums
from infra.host.parts.pipelines import PipelineSection
from schemas.ensembles.named import Ensemble
from schemas.errors import ConfigurationError
from schemas.nodes.model_store import STORE_PREFIX
from schemas.requests.tenants import Tenant
from services.agent.settings import AgentSection, ModelSection, WorkersSection
from services.aggregator.settings import AggregatorSection
from services.chassis.nats.connecting.address import without_password
from services.chassis.settings import (
    CONFIG_VARIABLE,
    ServiceSettings,
    config_path,
    load_settings,
)
from services.client.finding.broker_section import BrokerSection
from services.gateway.settings import GatewaySection
from services.metrics.settings import MetricsSection
from services.modelstore.settings import ModelStoreSection
from services.router.settings import RouterSection
from services.shard_stage.settings import StageModelSection, StageSection
from services.summarizer.settings import SummarizerSection

DEMO_CONFIG = Path(__file__).with_name("choir.toml")
DEMO_MODELS = Path(__file__).with_name("demo_models")
DEMO_PREFIX = "demo:"
USER_VARIABLE = "CHOIR_MESH__USER"
PASSWORD_VARIABLE = "CHOIR_MESH__PASSWORD"
ModelT = TypeVar("ModelT", ModelSection, StageModelSection)
SectionT = TypeVar("SectionT", AgentSection, StageSection)
SectionsT = TypeVar("SectionsT", tuple[AgentSection, ...], tuple[StageSection, ...])


class HostSettings(ServiceSettings):
    """All sections of choir.toml, and nothing else. `config` is where it is, from `CHOIR_CONFIG`."""

    model_config = SettingsConfigDict(
        env_prefix="CHOIR_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    config: Path | None = None
    broker: BrokerSection = BrokerSection()
    router: RouterSection = RouterSection()
    aggregator: AggregatorSection = AggregatorSection()
    summarizer: SummarizerSection = SummarizerSection()
    metrics: MetricsSection = MetricsSection()
    gateway: GatewaySection = GatewaySection()
    modelstore: ModelStoreSection = ModelStoreSection()
    ensembles: tuple[Ensemble, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    agents: tuple[AgentSection, ...] = ()
    workers: WorkersSection = WorkersSection()
    stages: tuple[StageSection, ...] = ()
    pipelines: tuple[PipelineSection, ...] = ()

    @field_validator("agents", "stages")
    @classmethod
    def _different_names(cls, sections: SectionsT, info: ValidationInfo) -> SectionsT:
        names = [section.name for section in sections]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two {info.field_name} are called {', '.join(twice)}")
        return sections

    @field_validator("ensembles")
    @classmethod
    def _different_ensembles(cls, ensembles: tuple[Ensemble, ...]) -> tuple[Ensemble, ...]:
        names = [ensemble.name for ensemble in ensembles]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two ensembles are called {', '.join(twice)}")
        return ensembles

    @field_validator("tenants")
    @classmethod
    def _different_tenants(cls, tenants: tuple[Tenant, ...]) -> tuple[Tenant, ...]:
        names = [tenant.name for tenant in tenants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tenants are called {', '.join(twice)}")
        keys = [key for tenant in tenants for key in tenant.public_keys]
        shared = sorted({key for key in keys if keys.count(key) > 1})
        if shared:
            raise ValueError(f"two tenants have the key {', '.join(shared)}")
        return tenants

    @field_validator("pipelines")
    @classmethod
    def _different_models(cls, pipelines: tuple[PipelineSection, ...]) -> tuple[PipelineSection, ...]:
        models = [pipeline.model for pipeline in pipelines]
        twice = sorted({model for model in models if models.count(model) > 1})
        if twice:
            raise ValueError(f"two pipelines are of the model {', '.join(twice)}")
        return pipelines

    @model_validator(mode="after")
    def _one_broker(self) -> HostSettings:
        user, password = self.mesh.user, self.mesh.password
        if (user is None) != (password is None):
            there, missing = ("password", "user") if user is None else ("user", "password")
            variable = USER_VARIABLE if user is None else PASSWORD_VARIABLE
            raise ValueError(
                f"mesh.{there} alone protects nothing, and mesh.{missing} is missing or empty: "
                f"set {missing} in section [mesh] too, or {variable} in the environment"
            )
        here = f"nats://{self.broker.host}:{self.broker.port}"
        same = self.mesh.url in (here, here.replace("nats://", "tls://"))
        if self.broker.embedded and "url" in self.mesh.model_fields_set and not same:
            raise ValueError(
                f"mesh.url is {without_password(self.mesh.url)}, but the broker started here would be "
                f"{here}: to join the one that is there, set embedded = false in section [broker] "
                "(CHOIR_BROKER__EMBEDDED=false); otherwise leave url out"
            )
        return self

    @model_validator(mode="after")
    def _store_for_on_demand(self) -> HostSettings:
        for agent in self.agents:
            if agent.on_demand is not None and not self.modelstore.enabled:
                raise ValueError(
                    f"agent {agent.name} loads models of this host's store on demand, and modelstore.enabled "
                    "is false: leave that out of section [modelstore], or on_demand out of the agent"
                )
        return self

    @property
    def folder(self) -> Path:
        """Where relative paths in the file start: the folder that it is in."""
        return (self.config or Path("choir.toml")).absolute().parent

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models that agents and stages of this host serve, as far as the file has them."""
        served = [model.name for agent in self.agents for model in agent.models]
        served += [name for agent in self.agents if agent.on_demand for name in agent.on_demand.models]
        offered = [model.name for stage in self.stages for model in stage.models]
        return tuple(dict.fromkeys((*served, *offered)))

    def metrics_folder(self, state: Path) -> Path:
        """The folder of the event database; `state` is the state folder."""
        if "folder" not in self.metrics.model_fields_set:
            return state / "metrics"
        return self.folder / self.metrics.folder.expanduser()

    def models_folder(self, state: Path) -> Path:
        """The folder of the model store; `state` is the state folder."""
        if "folder" not in self.modelstore.model_fields_set:
            return state / "models"
        return self.folder / self.modelstore.folder.expanduser()

    def store_dir(self, state: Path) -> Path:
        """The folder of the embedded broker; `state` is the state folder."""
        if self.broker.store_dir is None:
            return state / "broker"
        return self.folder / self.broker.store_dir.expanduser()


def load_host_settings(path: Path | None = None) -> HostSettings:
    """The settings of this host, with model paths that are absolute.

    `path` names the choir.toml; otherwise it is the one of `CHOIR_CONFIG`, the one in the working
    directory, or, if there is neither, the demo. ConfigurationError says what is wrong.
    """
    with _read_from(path or config_path() or DEMO_CONFIG):
        return resolve_models(load_settings(HostSettings))


@contextmanager
def _read_from(path: Path) -> Iterator[None]:
    """Have `load_settings` read this file, which it finds by the environment."""
    before = os.environ.get(CONFIG_VARIABLE)
    os.environ[CONFIG_VARIABLE] = str(path.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[CONFIG_VARIABLE]
        else:
            os.environ[CONFIG_VARIABLE] = before


def resolve_models(settings: HostSettings) -> HostSettings:
    """The same settings, with every model's path absolute.

    `demo:NAME` is a model that comes with Choir, and gets its checksum; a relative path starts at
    the folder of choir.toml.
    Whether the file is there is for its agent to find out: the others go on without it.
    """

    def resolved(model: ModelT) -> ModelT:
        kept = isinstance(model, StageModelSection) and str(model.path).startswith(STORE_PREFIX)
        if model.path is None or kept:
            return model
        path = model_path(model.path, settings.folder)
        shipped = path.parent == DEMO_MODELS and str(model.path).startswith(DEMO_PREFIX)
        sha256 = checksums.read(DEMO_MODELS).get(path.name) if shipped else model.sha256
        return model.model_copy(update={"path": path, "sha256": sha256})

    def with_paths(section: SectionT) -> SectionT:
        return section.model_copy(update={"models": tuple(map(resolved, section.models))})

    agents = tuple(map(with_paths, settings.agents))
    return settings.model_copy(update={"agents": agents, "stages": tuple(map(with_paths, settings.stages))})


def model_path(path: Path, folder: Path) -> Path:
    """Where a model file is: see `resolve_models`. ConfigurationError for a demo model that there is not."""
    name = str(path).removeprefix(DEMO_PREFIX)
    if name == str(path):
        return folder / path.expanduser()
    shipped = DEMO_MODELS / f"{name}.gguf"
    if not shipped.is_file():
        known = ", ".join(sorted(f"{DEMO_PREFIX}{file.stem}" for file in DEMO_MODELS.glob("*.gguf")))
        raise ConfigurationError(
            f"there is no demo model {name}; there are: {known or 'none'}", field="agents"
        )
    return shipped
