"""Settings of the summarizer: section `[summarizer]`."""

from __future__ import annotations

from pydantic import Field

from services.chassis.settings import Section, ServiceSettings


class SummarizerSection(Section):
    """`replicas` on this host; `slots` is how many chains one instance takes along at once.

    `max_parts` is into how many parts a text is split at most before that is called too long;
    `poll_interval_s` is how often the stream itself is looked into for an answer that has not been heard of.
    """

    replicas: int = Field(default=1, ge=0, le=16)
    slots: int = Field(default=64, ge=1, le=4_096)
    max_parts: int = Field(default=64, ge=2, le=999)
    poll_interval_s: float = Field(default=1.0, gt=0)


class SummarizerSettings(ServiceSettings):
    """What a summarizer can be told."""

    summarizer: SummarizerSection = SummarizerSection()
