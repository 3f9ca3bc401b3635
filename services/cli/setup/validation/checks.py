"""The table of checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from infra.settings import HostSettings, load_host_settings
from schemas.errors import ConfigurationError
from services.cli.setup.validation.broker import check_broker
from services.cli.setup.validation.finding import Finding, Findings, ok, wrong
from services.cli.setup.validation.models import check_models
from services.cli.setup.validation.space import check_disk, check_memory
from services.cli.setup.validation.workers import check_workers
from services.cli.views.terminal import counted

CHECKS: tuple[Callable[[HostSettings], Iterator[Finding]], ...] = (
    check_broker,
    check_models,
    check_workers,
    check_disk,
    check_memory,
)


def validate(config: Path | None) -> Findings:
    """What is found on this host with this choir.toml. A file that cannot be read ends it there."""
    what = "configuration"
    try:
        settings = load_host_settings(config)
    except ConfigurationError as error:
        return Findings(findings=(wrong(what, error.message, "correct it; infra/choir.toml is an example"),))
    agents, models = counted(len(settings.agents), "agent"), counted(len(settings.models), "model")
    read = ok(what, f"{settings.config}: {agents}, {models}")
    return Findings(findings=(read, *(finding for check in CHECKS for finding in check(settings))))
