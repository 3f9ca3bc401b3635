"""The mesh's memory: what needs the metrics service says so at once where there is none."""

from __future__ import annotations

from schemas.errors import MeshUnreachable
from services.cli.client import Choir
from services.cli.missing_service import METRICS, NO_METRICS


async def check_metrics(mesh: Choir) -> None:
    """Raises MeshUnreachable unless a metrics service is live."""
    if METRICS not in (await mesh.status()).services:
        raise MeshUnreachable(NO_METRICS)
