"""Settings of the router: section `[router]`."""

from __future__ import annotations

from pydantic import Field

from services.chassis.settings import Section, ServiceSettings


class RouterSection(Section):
    """`replicas` on this host; `max_waiting` clients may wait at one router; sweeps look for expired work."""

    replicas: int = Field(default=1, ge=0, le=16)
    max_waiting: int = Field(default=4_096, ge=1)
    sweep_interval_s: float = Field(default=2.0, gt=0)
    default_strategy: str = "majority"


class RouterSettings(ServiceSettings):
    """What a router can be told."""

    router: RouterSection = RouterSection()
