"""Refuses a second living instance of the same name, which would hide the first.

A lease, a worker's claim and a place in a pipeline are kept under an instance's name. On one host the
supervisor sees to it that a name is there once, so only another host can have it too: another machine, or
another state folder of this one. What is left of an instance that has died there runs out, and is waited for.
"""

from __future__ import annotations

import asyncio
import time

from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.errors import ConfigurationError
from schemas.nodes.lease import NodeLease
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages

LOOK_INTERVAL_S = 0.5
PATIENCE_S = 2 * LEASE_TTL_S
"""A lease that is not renewed is gone by then."""

log = get_logger("chassis.namesake")


async def refuse_namesake(client: Client, identity: Identity) -> None:
    """Returns when no other host has an instance of this name: at once, if none has a lease.

    Raises ConfigurationError if one renews its lease, and BrokerUnavailable if leases cannot be read.
    """
    leases = Bucket(client, subjects.NODES_BUCKET, messages(NodeLease))
    first = await _elsewhere(leases, identity)
    if first is None:
        return
    log.warning("another host has this name: is it alive?", host=first.host, host_id=first.host_id)
    end_s = time.monotonic() + PATIENCE_S
    while (lease := await _elsewhere(leases, identity)) is not None:
        if lease.seen_at_s != first.seen_at_s or time.monotonic() > end_s:
            raise ConfigurationError(
                f"{identity.service} {identity.instance!r} runs already, on host {lease.host} "
                f"({lease.host_id or 'no id'}), and this is host {identity.host} "
                f"({identity.host_id or 'no id'}): give it another name in choir.toml, on one of the two"
            )
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _elsewhere(leases: Bucket[NodeLease], identity: Identity) -> NodeLease | None:
    """The lease under this name, if it is of another host."""
    key = subjects.node_key(identity.service, identity.instance)
    try:
        lease = (await leases.get(key)).value
    except ValidationError:
        return None  # whoever put it, it says of no host that it is there
    if lease is None:
        return None
    one_id = identity.host_id is None or lease.host_id is None or lease.host_id == identity.host_id
    return None if one_id and lease.host == identity.host else lease
