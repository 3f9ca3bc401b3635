"""A NATS that somebody runs already: what it has to be told, so that it is to Choir as its own broker."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from infra.host.credentials import Credentials
from infra.host.parts.instances import planned
from infra.settings import HostSettings

WORDS = """\
# For a nats-server that runs already: `include` this file in its configuration, on each server of a cluster,
# and reload it. Accounts, users and permissions are in it, and of keys the public ones alone. It also needs
#   jetstream {{ store_dir: "...", sync_interval: always }}
#   max_payload: {max_payload}
# Made by `choir broker config` for {what}. Then: choir up --broker {url}
"""


def configuration(settings: HostSettings, state: Path) -> str:
    """The accounts, users and permissions of what this host runs; keys that are missing are made in `state`.

    Whoever comes without credentials is the tenant `local` where the broker is on loopback, and nobody
    elsewhere. Raises ConfigurationError if keys cannot be made.
    """
    instances = planned(settings, state)
    host = urlsplit(settings.mesh.servers[0]).hostname or settings.broker.host
    there = settings.model_copy(update={"broker": settings.broker.model_copy(update={"host": host})})
    services = len(instances)
    return WORDS.format(
        max_payload=settings.broker.max_payload,
        what=f"{services} services of this host",
        url=settings.mesh.url,
    ) + Credentials(state).accounts(there, instances)
