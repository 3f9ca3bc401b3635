"""Settings of the aggregator: section `[aggregator]`."""

from __future__ import annotations

from pydantic import Field

from services.chassis.settings import Section, ServiceSettings


class AggregatorSection(Section):
    """`replicas` on this host; `slots` is how many ensembles one instance gathers at once."""

    replicas: int = Field(default=1, ge=0, le=16)
    slots: int = Field(default=128, ge=1, le=4_096)
    poll_interval_s: float = Field(default=1.0, gt=0)


class AggregatorSettings(ServiceSettings):
    """What an aggregator can be told."""

    aggregator: AggregatorSection = AggregatorSection()
