"""The address of the mesh: what somebody said, what runs here, or where choir.toml would start one."""

from __future__ import annotations

from services.chassis.nats.connecting.address import reached_from_here
from services.chassis.settings import MeshSection, ServiceSettings, load_settings
from services.client.finding.broker_section import BrokerSection
from services.client.finding.local_mesh import RunningMesh, running_mesh
from services.client.finding.membership import config_folder, joined


class ClientSettings(ServiceSettings):
    """What a client reads of choir.toml."""

    broker: BrokerSection = BrokerSection()


def find_mesh(url: str | None = None) -> MeshSection:
    """How to reach the broker.

    In this order: `url`; `CHOIR_MESH__URL`; `[mesh] url` of choir.toml; the mesh that `choir up` runs on
    this host; the one that this user has joined (`choir join`); the broker that choir.toml would start here;
    nats://127.0.0.1:4222. Raises ConfigurationError if choir.toml cannot be read.
    """
    settings = load_settings(ClientSettings)
    mesh = settings.mesh
    if url is None and "url" not in mesh.model_fields_set:
        here, member = running_mesh(), joined(config_folder())
        if here is not None and (member is None or not here.joined):
            return mesh.model_copy(update=_by(here, mesh))
        if member is not None:
            return member.section
        url = _of(settings.broker)
    return mesh if url is None else mesh.model_copy(update={"url": url})


def _by(here: RunningMesh, mesh: MeshSection) -> dict[str, object]:
    """What the mesh of this host says, except for who connects where `[mesh]` says that."""
    told: dict[str, object] = {"url": here.url, "ca": here.ca, "tls_first": here.tls_first}
    said = mesh.user is not None or mesh.nkey is not None
    return told if said else {**told, "nkey": here.nkey}


def _of(broker: BrokerSection) -> str | None:
    """Where the broker of choir.toml would be; None if none is started, or at a port that nobody knows."""
    if not broker.embedded or broker.port == 0:
        return None
    return f"nats://{reached_from_here(broker.host)}:{broker.port}"
