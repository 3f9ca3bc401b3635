"""Which processes a host runs, and what each is told in its environment."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable

from infra.child import ServiceCommand
from infra.settings import HostSettings
from services.agent.settings import AgentSection
from services.chassis.settings import CONFIG_VARIABLE


def service_commands(settings: HostSettings, url: str) -> tuple[ServiceCommand, ...]:
    """Every process that this host runs, with its environment."""
    host = socket.gethostname()
    commands: list[ServiceCommand] = []

    def add(service: str, instance: str, extra: dict[str, str]) -> None:
        env = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "CHOIR_MESH__URL": url,
            "CHOIR_INSTANCE": instance,
            **({CONFIG_VARIABLE: str(settings.config)} if settings.config else {}),
            # One port in the file, as many processes on the host: they take the ports from there on.
            **(
                {"CHOIR_HEALTH__PORT": str(settings.health.port + len(commands))}
                if settings.health.port
                else {}
            ),
            **extra,
        }
        # -P: a folder `services` in the working directory is not ours.
        commands.append(
            ServiceCommand(service, instance, [sys.executable, "-P", "-m", f"services.{service}"], env)
        )

    for number in range(1, settings.aggregator.replicas + 1):
        add("aggregator", f"{host}-aggregator-{number}", {})
    for number in range(1, settings.summarizer.replicas + 1):
        add("summarizer", f"{host}-summarizer-{number}", {})
    for agent in with_threads(settings.agents, _cores()):
        for instance in _instances(agent):
            add("agent", instance, {"CHOIR_AGENT": agent.model_dump_json(exclude_none=True)})
    for number in range(1, settings.router.replicas + 1):
        add("router", f"{host}-router-{number}", {})
    return tuple(commands)


def _instances(agent: AgentSection) -> Iterable[str]:
    if agent.replicas == 1:
        return [agent.name]
    return [f"{agent.name}-{number}" for number in range(1, agent.replicas + 1)]


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)


def with_threads(agents: Iterable[AgentSection], cores: int) -> tuple[AgentSection, ...]:
    """Share the cores of the host among the agents that compute on them, where the file does not say."""
    agents = tuple(agents)
    computing = sum(agent.replicas for agent in agents if agent.backend == "llama_cpp")
    share = max(1, cores // max(1, computing))
    return tuple(
        agent.model_copy(update={"threads": share})
        if agent.backend == "llama_cpp" and agent.threads is None
        else agent
        for agent in agents
    )
