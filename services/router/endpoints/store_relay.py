"""What a gateway asks of the stores of models: the key that it shows is looked at here, and goes no further.

Any host that joins may keep models, and none of them is to see what opens the mesh.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import nats.errors
from nats.aio.client import Client

from schemas import subjects
from schemas.errors import MeshUnreachable
from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import ManageStore
from services.chassis.nats.endpoints import Caller, trace_headers

STORE_SERVICE = "modelstore"
ANSWER_S = 14.0
"""Shorter than a client waits."""
NOBODY_S = 4.0
"""For a store whose lease is there, and which is just being started anew."""
PAUSE_S = 0.1


class StoreRelay:
    """Asks the stores in the name of a caller whose key was found to be good. `nodes` are the leases of all
    that live."""

    def __init__(self, client: Client, nodes: Callable[[], Iterable[NodeLease]]) -> None:
        self._client = client
        self._nodes = nodes

    async def relay(self, request: ManageStore, caller: Caller) -> None:
        """Sends what a store answers, errors too. MeshUnreachable if none does: at once where none has a
        lease."""
        where, headers = subjects.door(caller.tenant, subjects.STORE), trace_headers()
        if caller.key is not None:
            headers[subjects.KEY_HEADER] = caller.key
        until_s = time.monotonic() + NOBODY_S
        while True:
            try:
                reply = await self._client.request(
                    where, request.to_bytes(), timeout=ANSWER_S, headers=headers
                )
                break
            except nats.errors.NoRespondersError as error:
                if time.monotonic() > until_s or not self._any():
                    raise MeshUnreachable(
                        "no store of models answers: is one enabled, section [modelstore] of choir.toml?"
                    ) from error
                await asyncio.sleep(PAUSE_S)
            except nats.errors.Error as error:
                raise MeshUnreachable("no store of models has answered in time") from error
        await caller.pass_on(reply)

    def _any(self) -> bool:
        return any(node.service == STORE_SERVICE for node in self._nodes())
