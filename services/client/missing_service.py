"""Explains a request that nobody answers: which service is missing, and how to start one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.broker import catalog
from schemas.errors import MeshUnreachable, NotPermitted
from services.client.connection import HOW_TO_START

if TYPE_CHECKING:
    from services.client.client import Choir

METRICS = "metrics"
NO_METRICS = (
    "this mesh runs no metrics service, and nobody else knows the past; "
    "give choir.toml a section [metrics], see services/metrics/README.md"
)

NO_SUPERVISOR = (
    "the broker answers, but nobody there who lets others in: is `choir up` running on its host? Who may "
    "come to a broker that `choir up` has not started is for whoever configures that broker"
)


def nobody_answers(subject: str) -> str:
    """What it means that nobody listens on a subject of the client surface."""
    service = next((e.service for e in catalog.ENDPOINTS if e.subject == subject), "router")
    if service == METRICS:
        return NO_METRICS
    if service == catalog.SUPERVISOR:
        return NO_SUPERVISOR
    if service == "router":
        return f"the broker answers, but no router does; {HOW_TO_START}"
    return f"this mesh runs no {service}: `choir up` starts one unless section [{service}] says replicas = 0"


async def check_metrics(mesh: Choir) -> None:
    """Raises MeshUnreachable unless a metrics service is live: what looks back needs one. Whoever may not see
    what is live, and looks back at its own requests, is told so where it asks for them."""
    try:
        live = (await mesh.status()).services
    except NotPermitted:
        return
    if METRICS not in live:
        raise MeshUnreachable(NO_METRICS)
