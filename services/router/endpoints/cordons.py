"""The endpoint `choir.cordon`: operators take hosts and instances out of work, and let them in again.

What they say lies in a bucket, so it holds for whoever is started again too. Agents and stage services read
it there; a router adds it to their leases, so that nothing new is planned for them at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import InvalidRequest, NotReady
from schemas.nodes.cordons import Cordon, CordonsReply, ManageCordons
from schemas.nodes.lease import NodeLease
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.clock import BrokerClock
from services.chassis.nats.endpoints import Caller

MOST_CORDONS = 1_000
"""One reply has room for so many."""
HEEDING = ("agent", "shard_stage")
"""Services that a cordon means something to: what others do is not work on models."""

log = get_logger("router.cordons")


class Cordons:
    """`choir.cordon`: list, cordon, drain, uncordon. Also what is known of them, for leases."""

    def __init__(self, client: Client, clock: BrokerClock) -> None:
        self._clock = clock
        self._known: dict[str, Cordon] = {}
        self._bucket = Bucket(
            client, subjects.CORDONS_BUCKET, messages(Cordon), self._on_put, self._on_delete
        )

    async def start(self) -> None:
        """Returns when it is known which there are."""
        await self._bucket.watch()

    async def resume(self) -> None:
        """After a reconnection, or when updates were missed."""
        await self._bucket.reload()

    def _on_put(self, key: str, cordon: Cordon) -> None:
        self._known[key] = cordon

    def _on_delete(self, key: str) -> None:
        self._known.pop(key, None)

    @property
    def known(self) -> tuple[Cordon, ...]:
        """All cordons, those of hosts first."""
        return tuple(cordon for _, cordon in sorted(self._known.items()))

    # --- what they mean for leases ------------------------------------------------------

    def marked(self, lease: NodeLease) -> NodeLease:
        """A lease with the cordon around it. The models of an agent cannot be asked there then."""
        cordons = self._around(lease) if self._known and lease.service in HEEDING else ()
        if not cordons:
            return lease
        drains = any(cordon.drain for cordon in cordons)
        models = lease.models
        if lease.stage is None:
            outs = " and ".join(f"`{cordon.way_out}`" for cordon in cordons)
            problem = NotReady(f"{lease.instance} is cordoned: {outs} lets it in again").body()
            models = tuple(
                model if model.problem else model.model_copy(update={"problem": problem}) for model in models
            )
        return lease.model_copy(update={"cordon": "drain" if drains else "cordon", "models": models})

    def _around(self, lease: NodeLease) -> tuple[Cordon, ...]:
        keys = subjects.host_cordon_key(lease.host), subjects.instance_cordon_key(lease.instance)
        return tuple(self._known[key] for key in keys if key in self._known)

    # --- what clients say ---------------------------------------------------------------

    async def manage(self, request: ManageCordons, nodes: Iterable[NodeLease], caller: Caller) -> None:
        """Does what is asked, and sends all cordons. `nodes` are those that there are now."""
        if request.action != "list":
            await self._change(request, tuple(nodes), caller.tenant)
        await caller.send(CordonsReply(cordons=self.known))

    async def _change(self, request: ManageCordons, nodes: tuple[NodeLease, ...], tenant: str) -> None:
        if request.host is not None:
            field, name, key = "host", request.host, subjects.host_cordon_key(request.host)
            there = {node.host for node in nodes if node.service in HEEDING}
        else:
            field, name = "instance", request.instance or ""
            key, there = subjects.instance_cordon_key(name), _heeding(nodes)
        if request.action == "uncordon":
            if key not in self._known:
                names = ", ".join(cordon.whom for cordon in self.known) or "none"
                raise InvalidRequest(f"{field}: {name} is not cordoned; cordoned: {names}", field=field)
            await self._bucket.delete(key)
            self._on_delete(key)
        else:
            if name not in there and key not in self._known:
                names = ", ".join(sorted(there)) or "none"
                raise InvalidRequest(
                    f"{field}: no agent or stage service runs as {name!r}; there are: {names}"
                    if field == "instance"
                    else f"{field}: no agent or stage service runs on {name!r}; hosts: {names}",
                    field=field,
                )
            if len(self._known) >= MOST_CORDONS:
                raise InvalidRequest(
                    f"{field}: {MOST_CORDONS} are cordoned, and there may be no more: let some in again",
                    field=field,
                )
            drain = request.action == "drain"
            cordon = Cordon(
                host=request.host, instance=request.instance, drain=drain, at_s=self._clock.now(), by=tenant
            )
            await self._bucket.put(key, cordon)
            self._on_put(key, cordon)
        log.warning("cordon changed", action=request.action, by=tenant, **{field: name})


def _heeding(nodes: Iterable[NodeLease]) -> set[str]:
    return {node.instance for node in nodes if node.service in HEEDING}


def cordon_problems(cordons: Iterable[Cordon]) -> tuple[str, ...]:
    """A line for each cordon: nobody forgets one for long."""
    return tuple(
        f"{cordon.whom} is {'to be drained' if cordon.drain else 'cordoned'}, by {cordon.by}: "
        f"`{cordon.way_out}` lets it in again"
        for cordon in cordons
    )
