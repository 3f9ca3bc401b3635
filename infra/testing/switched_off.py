"""Parts of a host that a test or a benchmark is not about."""

from __future__ import annotations

COUNTED = ("router", "aggregator", "summarizer")


def switched_off(*services: str) -> str:
    """The sections of choir.toml with which a host runs none of these services."""
    return "".join(
        f"[{service}]\n{'replicas = 0' if service in COUNTED else 'enabled = false'}\n"
        for service in services
    )
