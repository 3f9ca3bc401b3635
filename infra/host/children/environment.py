"""The environment of a service's process: what it needs of the surroundings, and nothing else.

A secret that a process does not have cannot be had from it. Variables that are not here reach no service; an
API key reaches agents, if `[workers.keys]` names its variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from infra.host.children.surroundings import general_of
from infra.settings import HostSettings
from services.agent.settings import AgentSettings
from services.aggregator.settings import AggregatorSettings
from services.chassis.settings import ServiceSettings
from services.gateway.settings import GatewaySettings
from services.metrics.settings import MetricsSettings
from services.modelstore.settings import ModelStoreSettings
from services.router.settings import RouterSettings
from services.shard_stage.settings import StageSettings
from services.summarizer.settings import SummarizerSettings

SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "agent": AgentSettings,
    "aggregator": AggregatorSettings,
    "gateway": GatewaySettings,
    "metrics": MetricsSettings,
    "modelstore": ModelStoreSettings,
    "router": RouterSettings,
    "shard_stage": StageSettings,
    "summarizer": SummarizerSettings,
}
SETTINGS_PREFIX = "CHOIR_"

PROXIES = frozenset(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"))


def environment_of(
    service: str, settings: HostSettings, surroundings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables of `surroundings` (of this process, if left out) that a service's process is to have."""
    surroundings = os.environ if surroundings is None else surroundings
    general = general_of(surroundings)
    keys = {key.variable for key in settings.workers.keys.values()} if service == "agent" else set()
    return {
        name: value
        for name, value in surroundings.items()
        if name in general
        or (name.upper().startswith(SETTINGS_PREFIX) and _is_setting(service, name.upper()))
        or (service in ("agent", "modelstore") and name.upper() in PROXIES)
        or (service == "agent" and name in keys)
    }


def _is_setting(service: str, name: str) -> bool:
    """Whether a variable sets something that this service reads, such as CHOIR_ROUTER__SLOTS."""
    section = name.removeprefix(SETTINGS_PREFIX).partition("__")[0]
    return section.lower() in SETTINGS[service].model_fields
