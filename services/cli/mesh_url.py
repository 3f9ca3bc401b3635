"""Where the mesh is: what somebody said, else what runs on this host, else the usual port."""

from __future__ import annotations

from infra.state import running_mesh
from services.chassis.settings import MeshSection, ServiceSettings, load_settings


def find_mesh(url: str | None = None) -> MeshSection:
    """How to reach the broker.

    In this order: `url`; `CHOIR_MESH__URL`; `[mesh] url` of choir.toml; the mesh that `choir up` runs on
    this host; nats://127.0.0.1:4222. Raises ConfigurationError if choir.toml cannot be read.
    """
    mesh = load_settings(ServiceSettings).mesh
    if url is None and "url" not in mesh.model_fields_set and (here := running_mesh()) is not None:
        url = here.url
    return mesh if url is None else mesh.model_copy(update={"url": url})
