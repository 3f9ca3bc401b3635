"""A mesh of the demo's own: a broker on a free port, a store that goes with it, and the services."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.demo_models.checksums import model_path
from infra.demo_models.family import FAMILY
from infra.host.supervisor import Supervisor
from infra.settings import DEMO_CONFIG, HostSettings, load_host_settings
from schemas.errors import ModelUnusable
from services.chassis.settings import CONFIG_VARIABLE, MeshSection
from services.client.finding.broker_section import BrokerSection
from services.gateway.settings import GatewaySection

SETTINGS_PREFIX = "CHOIR_"


@asynccontextmanager
async def demo_mesh(config: Path | None) -> AsyncIterator[Supervisor]:
    """Starts the mesh, and stops it and removes what it stored. ChoirError says what is missing."""
    with tempfile.TemporaryDirectory(prefix="choir-demo-", ignore_cleanup_errors=True) as folder:
        supervisor = Supervisor(demo_settings(config), state=Path(folder), forward=_keep_quiet)
        await supervisor.start()
        try:
            yield supervisor
        finally:
            await supervisor.stop()


def demo_settings(config: Path | None) -> HostSettings:
    """The demo's choir.toml, or another one, on a broker that nobody else uses, and without a gateway.

    What the environment and the working directory say of other meshes is left out, for this process and
    for the services that it starts.
    """
    for name in [name for name in os.environ if name.startswith(SETTINGS_PREFIX)]:
        del os.environ[name]
    path = config or DEMO_CONFIG
    os.environ[CONFIG_VARIABLE] = str(path.absolute())
    if config is None:
        _check_models()
    settings = load_host_settings(path)
    own = {"broker": BrokerSection(port=0), "mesh": MeshSection(), "gateway": GatewaySection(enabled=False)}
    return settings.model_copy(update=own)


def _check_models() -> None:
    missing = [path.name for path in map(model_path, FAMILY) if not path.is_file()]
    if missing:
        raise ModelUnusable(
            f"the demo's model files are missing from infra/demo_models: {', '.join(missing)}; "
            "fetch them with the repository, or make them with `just train-models`"
        )


def _keep_quiet(_instance: str, _line: str) -> None:
    """The lines of the services would run through the table; what is wrong comes as an error."""
