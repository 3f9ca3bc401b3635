"""A host or an instance, looked at until nothing is in work there."""

from __future__ import annotations

import asyncio
import time

from schemas.errors import DeadlineExceeded
from schemas.nodes.lease import NodeLease
from services.client.client import Choir

LOOK_S = 0.5


async def drained(name: str, *, instance: bool, wait_s: float) -> None:
    """Returns when it is drained, or gone. Raises DeadlineExceeded with what is left there after `wait_s`."""
    end_s = time.monotonic() + wait_s
    async with Choir() as mesh:
        while True:
            nodes = [
                node for node in await mesh.nodes() if name == (node.instance if instance else node.host)
            ]
            left = [node for node in nodes if works(node)]
            if not left:
                return
            if time.monotonic() >= end_s:
                told = "; ".join(f"{node.instance}: {what_is_left(node)}" for node in left)
                raise DeadlineExceeded(
                    f"{name} is not drained after {wait_s:g} s ({told}). It stays cordoned; `choir nodes` "
                    "shows how far it is"
                )
            await asyncio.sleep(LOOK_S)


def works(node: NodeLease) -> bool:
    """Whether it does what a cordon ends, and is not done yet."""
    return (node.service == "agent" or node.stage is not None) and not node.drained


def what_is_left(node: NodeLease) -> str:
    """Why it is not drained, in a few words."""
    if node.stage is not None and node.stage.held is not None:
        return f"stage {node.stage.held.stage} of {node.stage.held.model}"
    return f"{node.busy} in work" if node.busy else "it has not heard of the cordon yet"
