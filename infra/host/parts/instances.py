"""The processes that a host runs, and what each is told in its environment."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.host.children.child import ServiceCommand
from infra.host.children.environment import environment_of
from infra.host.state import host_id
from infra.settings import HostSettings
from services.agent.settings import AgentSection
from services.chassis.process.limits import cores
from services.chassis.settings import CONFIG_VARIABLE
from services.client.finding.local_mesh import state_folder
from services.shard_stage.settings import StageSection

HEALTH_PORT_VARIABLE = "CHOIR_HEALTH__PORT"
LONGEST_NAME = 24


@dataclass(frozen=True)
class Instance:
    """One process of this host: its service and name, and what it alone is told in its environment.

    `models` are those whose work it takes; an agent that `takes_workers` takes that of registered workers'
    models too, and of those that are loaded on demand. A `keyless` gateway serves whoever is on this host.
    """

    service: str
    name: str
    own: Mapping[str, str]
    models: tuple[str, ...] = ()
    takes_workers: bool = False
    keyless: bool = False


def service_commands(
    settings: HostSettings,
    url: str,
    state: Path | None = None,
    key_of: Callable[[str, str], Path] | None = None,
    trust: Mapping[str, Any] | None = None,
) -> tuple[ServiceCommand, ...]:
    """Every process that this host runs, with its environment. `state` is the state folder.

    With `key_of` each connects by a key of its own, whose file that tells, and by nothing that `[mesh]` says.
    `trust` are the fields of `[mesh]` that say what proves the broker.
    """
    state = state or state_folder()
    commands: list[ServiceCommand] = []
    for place, instance in enumerate(planned(settings, state)):
        env = {
            **environment_of(instance.service, settings),
            "PYTHONUNBUFFERED": "1",
            "CHOIR_MESH__URL": url,
            "CHOIR_INSTANCE": instance.name,
            "CHOIR_HOST_ID": host_id(state),
            **({CONFIG_VARIABLE: str(settings.config)} if settings.config else {}),
            # One port in the file, as many processes on the host: they take the ports from there on.
            **({HEALTH_PORT_VARIABLE: str(settings.health.port + place)} if settings.health.port else {}),
            **{f"CHOIR_MESH__{name.upper()}": str(value) for name, value in (trust or {}).items() if value},
            **({} if key_of is None else _by_key(key_of(instance.service, instance.name))),
            **instance.own,
        }
        # -P: a folder `services` in the working directory is not ours.
        program = [sys.executable, "-P", "-m", f"services.{instance.service}"]
        commands.append(ServiceCommand(instance.service, instance.name, program, env))
    return tuple(commands)


def _by_key(path: Path) -> dict[str, str]:
    return {"CHOIR_MESH__NKEY": str(path), "CHOIR_MESH__USER": "", "CHOIR_MESH__PASSWORD": ""}


def host_name(state: Path) -> str:
    """What this host is called in the names of its processes."""
    return f"{socket.gethostname()}-{host_id(state)}"


def member_name(state: Path) -> str:
    """The same as the name of a host that has joined is written: in a-z, 0-9, - and _."""
    written = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")
    return f"{written[:LONGEST_NAME] or 'host'}-{host_id(state)}"


def store_instance(host: str) -> str:
    """What the model store of a host is called."""
    return f"{host}-modelstore"


def planned(settings: HostSettings, state: Path) -> tuple[Instance, ...]:
    """Every process that this host runs, in the order of the start. `state` is the state folder."""
    host = host_name(state)
    instances: list[Instance] = []

    def add(
        service: str,
        name: str,
        own: Mapping[str, str],
        models: tuple[str, ...] = (),
        takes_workers: bool = False,
    ) -> None:
        instances.append(Instance(service, name, own, models, takes_workers))

    for number in range(1, settings.aggregator.replicas + 1):
        add("aggregator", f"{host}-aggregator-{number}", {})
    for number in range(1, settings.summarizer.replicas + 1):
        add("summarizer", f"{host}-summarizer-{number}", {})
    if settings.metrics.enabled:
        folder = settings.metrics_folder(state)
        add("metrics", f"{host}-metrics", {"CHOIR_METRICS__FOLDER": str(folder)})
    if settings.modelstore.enabled:
        folder = settings.models_folder(state)
        add("modelstore", store_instance(host), {"CHOIR_MODELSTORE__FOLDER": str(folder)})
    if settings.gateway.enabled:
        keyless = not settings.gateway.keys_needed
        instances.append(Instance("gateway", f"{host}-gateway", {}, keyless=keyless))
    agents, stages = with_threads(settings.agents, settings.stages, cores())
    for agent in agents:
        agent = with_store(agent, store_instance(host))
        serves, own = agent.known_models, agent.model_dump_json(exclude_none=True)
        takes_more = settings.workers.enabled or agent.loads_any
        for instance in _instances(agent.name, agent.replicas):
            add("agent", instance, {"CHOIR_AGENT": own}, serves, takes_more)
    for instance, stage in stages:
        offers = tuple(model.name for model in stage.models)
        add("shard_stage", instance, {"CHOIR_STAGE": stage.model_dump_json(exclude_none=True)}, offers)
    for number in range(1, settings.router.replicas + 1):
        add("router", f"{host}-router-{number}", {})
    return tuple(instances)


def with_store(agent: AgentSection, store: str) -> AgentSection:
    """An agent that loads models on demand, told which store is its host's."""
    if agent.on_demand is None or agent.on_demand.store is not None:
        return agent
    return agent.model_copy(update={"on_demand": agent.on_demand.model_copy(update={"store": store})})


def _instances(name: str, count: int) -> Iterable[str]:
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def with_threads(
    agents: Iterable[AgentSection], stages: Iterable[StageSection], cores: int
) -> tuple[tuple[AgentSection, ...], tuple[tuple[str, StageSection], ...]]:
    """Share the cores of the host among what computes on them, where the file does not say: agents, and the
    instances of stages, each with its name.

    Standbys take the place of a stage, so no cores are put aside for them. What does not go into the cores
    evenly is given to stages: together they use all cores that agents leave.
    """
    agents, stages = tuple(agents), tuple(stages)
    local = [agent for agent in agents if agent.backend == "llama_cpp"]
    computing = sum(agent.replicas for agent in local) + sum(stage.replicas for stage in stages)
    share = max(1, cores // max(1, computing))
    shared = tuple(
        agent.model_copy(update={"threads": share}) if agent in local and agent.threads is None else agent
        for agent in agents
    )
    spare = max(0, cores - share * computing)
    placed = []
    for stage in stages:
        for number, instance in enumerate(_instances(stage.name, stage.replicas + stage.standbys)):
            extra = 1 if spare and number < stage.replicas and stage.threads is None else 0
            spare -= extra
            placed.append((instance, stage.model_copy(update={"threads": stage.threads or share + extra})))
    return shared, tuple(placed)
