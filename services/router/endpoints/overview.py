"""The endpoints `choir.nodes`, `choir.models` and `choir.status`: the mesh at this moment.

Pure but for the length of the queues.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import nats.errors
from nats.js import JetStreamContext

from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.message import Message
from schemas.nodes.lease import CLOCK_TOLERANCE_S, NodeLease, OnDemand, ServedModel
from schemas.replies import ModelsReply, ModelSummary, NodesReply, StatusReply
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.directory import Directory, identity_of
from services.chassis.registry.ensembles import Ensembles
from services.chassis.registry.lease import FULL
from services.chassis.registry.lease_size import TEXT_CHARACTERS, without_details
from services.chassis.registry.tenants import Tenants
from services.router.endpoints.cordons import Cordons, cordon_problems
from services.router.endpoints.queues import Queues
from services.router.placement.service import Placement
from services.router.tenancy.limits import TenantLimits

RETRY_AFTER_S = 1.0
FULL_FROM = 0.95
"""From this share of its bytes on the bucket of leases counts as full: the next lease may be a large one."""
LOADED_FIRST = ("loaded", "loading", "unloading", "unloaded")
GENERATORS = ("agent", "shard_stage")
"""Services that have slots for generations, in leases that the status adds up."""


class Overview:
    """`nodes`, `models` and `status`."""

    def __init__(
        self,
        directory: Directory,
        placement: Placement,
        ensembles: Ensembles,
        js: JetStreamContext,
        tenants: Tenants,
        limits: TenantLimits,
        cordons: Cordons,
        queues: Queues,
    ) -> None:
        self._queues = queues
        self._cordons = cordons
        self._tenants = tenants
        self._limits = limits
        self._directory = directory
        self._placement = placement
        self._ensembles = ensembles
        self._stream_counts = StreamCounts(js)

    async def nodes(self, _request: Message, caller: Caller) -> None:
        """Sends all live leases; without their details, or not all of them, where there are too many. Whoever
        operates nothing is not told what other tenants have in work."""
        nodes = tuple(map(without_prefixes, self._directory.nodes))
        if not self._tenants.sees_all(caller.tenant):
            nodes = tuple(own_part(node, caller.tenant) for node in nodes)
        await caller.send_what_fits(node_lists(nodes))

    async def models(self, _request: Message, caller: Caller) -> None:
        """Sends all models that can be asked, all pipelines, and the ensembles that have a name."""
        serving = self._directory.serving()
        models = tuple(
            summarize_model(name, current)
            for name, served in serving.items()
            if (current := [entry for entry in served if self._placement.serves(entry[0], name)])
        )
        pipelines, ensembles = self._placement.summaries(), self._ensembles.all
        await caller.send(ModelsReply(models=models, pipelines=pipelines, ensembles=ensembles))

    async def status(self, _request: Message, caller: Caller) -> None:
        """Sends the mesh at a glance. Whoever operates nothing is told of its own requests alone: how many
        are in flight, and of no results or queues."""
        counts = await self._counts(caller.tenant)
        served = self._directory.serving()
        sees_all = self._tenants.sees_all(caller.tenant)
        queues = await self._queues.of_models(served) if sees_all else {}
        nodes = self._directory.nodes
        status = StatusReply(
            services=dict(Counter(node.service for node in nodes)),
            models=tuple(served),
            slots=sum(node.slots for node in nodes if _works(node)),
            busy=sum(node.busy for node in nodes if _works(node)),
            queued=counts.queued,
            results=counts.results,
            problems=(
                *((f"{FULL}; who starts now is not seen",) if counts.leases_full else ()),
                *problems(nodes),
                *cordon_problems(self._cordons.known),
                *self._placement.problems,
                *self._ensembles.disputes,
            ),
            pipelines={pipeline.model: pipeline.state for pipeline in self._placement.summaries()},
            queues=queues,
        )
        await caller.send_what_fits(glances(status))

    async def _counts(self, tenant: str) -> Counts:
        """What the streams hold, as far as a tenant may know. Raises BrokerUnavailable."""
        if not self._tenants.sees_all(tenant):
            return Counts(self._limits.in_flight(tenant))
        return await self._stream_counts.now()


class Counts(NamedTuple):
    """How many requests are queued, how many results kept, and whether there is no room for more leases."""

    queued: int = 0
    results: int = 0
    leases_full: bool = False


class StreamCounts:
    """What the streams hold. Whoever asks while the broker is asked waits for the
    next look, with all others who do: so it does not matter how many ask."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._turn = asyncio.Lock()
        self._begun = self._seen_by = 0
        """How many looks have begun, and which of them saw what is known."""
        self._seen: Counts | BrokerUnavailable = Counts()

    async def now(self) -> Counts:
        """What a look sees that begins after this was asked. Raises BrokerUnavailable."""
        asked_at = self._begun
        async with self._turn:
            if self._seen_by <= asked_at:
                self._begun += 1
                self._seen = await self._look()
                self._seen_by = self._begun
            seen = self._seen
        if isinstance(seen, BrokerUnavailable):
            raise BrokerUnavailable(seen.message, retry_after_s=RETRY_AFTER_S)
        return seen

    async def _look(self) -> Counts | BrokerUnavailable:
        try:
            commands = await self._js.stream_info(subjects.COMMANDS_STREAM)
            results = await self._js.stream_info(subjects.RESULTS_STREAM)
            leases = await self._js.stream_info(subjects.bucket_stream(subjects.NODES_BUCKET))
        except nats.errors.Error as error:
            why = str(error) or type(error).__name__
            return BrokerUnavailable(f"the broker does not say how much is queued: {why}")
        most_bytes = leases.config.max_bytes or 0
        leases_full = 0 < most_bytes * FULL_FROM <= leases.state.bytes
        return Counts(commands.state.messages, results.state.messages, leases_full)


def _works(node: NodeLease) -> bool:
    """Whether its slots are for generations, and are to be had."""
    return node.service in GENERATORS and not (node.service == "agent" and node.cordon)


def without_prefixes(node: NodeLease) -> NodeLease:
    """A lease without what agents tell one another of the prompts that they keep: it is nobody else's."""
    if not any(model.prefixes for model in node.models):
        return node
    models = tuple(model.model_copy(update={"prefixes": ()}) for model in node.models)
    return node.model_copy(update={"models": models})


def own_part(node: NodeLease, tenant: str) -> NodeLease:
    """A lease without what it says of other tenants."""
    own = {name: load for name, load in node.tenants.items() if name == tenant}
    return node.model_copy(update={"tenants": own})


def node_lists(nodes: tuple[NodeLease, ...]) -> Iterator[NodesReply]:
    """The list of all leases, and ever shorter ones."""
    yield NodesReply(nodes=nodes)
    plain = tuple(without_details(node) for node in nodes)
    yield NodesReply(nodes=plain)
    while plain:
        plain = plain[: len(plain) // 2]
        yield NodesReply(nodes=plain, left_out=len(nodes) - len(plain))


def glances(status: StatusReply) -> Iterator[StatusReply]:
    """The mesh at a glance, and the same without the queues and with ever less of its problems."""
    yield status
    lines = tuple(line[:TEXT_CHARACTERS] for line in status.problems)
    status = status.model_copy(update={"problems": lines})
    yield status
    status = status.model_copy(update={"queues": {}})
    yield status
    while lines:
        lines = lines[: len(lines) // 2]
        more = f"{len(status.problems) - len(lines)} more problems: see `choir nodes`"
        yield status.model_copy(update={"problems": (*lines, more)})


def summarize_model(name: str, served: list[tuple[NodeLease, ServedModel]]) -> ModelSummary:
    """One model over all agents that serve it; speed is the sum over agents that have measured it."""
    models = [model for _, model in served]
    stored = next((model for model in models if model.file is not None), models[0])
    speeds = [model.tokens_per_s for model in models if model.tokens_per_s is not None]
    contexts = [model.context_tokens for model in models if model.context_tokens is not None]
    return ModelSummary(
        name=name,
        agents=tuple(model.worker.id if model.worker else lease.instance for lease, model in served),
        slots=sum(model.slots for model in models),
        busy=sum(model.busy for model in models),
        context_tokens=min(contexts, default=None),
        parameters=models[0].parameters,
        file=stored.file,
        size_bytes=stored.size_bytes,
        quantisation=stored.quantisation,
        tokens_per_s=sum(speeds) if speeds else None,
        description=models[0].description,
        capabilities=tuple(
            name for name in models[0].capabilities if all(name in model.capabilities for model in models)
        ),
        identity=identity_of(served),
        on_demand=most_loaded(models),
        repository=next((model.repository for model in models if model.repository is not None), None),
    )


def most_loaded(models: Sequence[ServedModel]) -> OnDemand | None:
    """How the agent has a model that has most of it; None if one of them has it loaded all the time."""
    found = [model.on_demand for model in models if model.on_demand is not None]
    if len(found) < len(models):
        return None
    return min(found, key=lambda one: LOADED_FIRST.index(one.state))


def clocks_off(nodes: tuple[NodeLease, ...]) -> dict[str, float]:
    """The hosts whose clock is far from the broker's, and how far it is ahead."""
    return {
        node.host: node.clock_ahead_s
        for node in nodes
        if node.clock_ahead_s is not None and abs(node.clock_ahead_s) > CLOCK_TOLERANCE_S
    }


def clock_problem(host: str, ahead_s: float) -> str:
    """What such a host is told. Nothing is done too late or too early for it."""
    side = "ahead of" if ahead_s > 0 else "behind"
    return (
        f"host {host}: its clock is {abs(ahead_s):.0f} s {side} the broker's; the mesh keeps to the "
        "broker's, but this host's logs and events tell other times: set its clock (NTP)"
    )


def problems(nodes: tuple[NodeLease, ...]) -> tuple[str, ...]:
    """A line for everything that some lease complains of. That an agent is cordoned is not its complaint."""
    lines = [f"{node.instance}: {node.problem.message}" for node in nodes if node.problem]
    lines += [clock_problem(host, ahead_s) for host, ahead_s in clocks_off(nodes).items()]
    for node in nodes:
        if node.cordon is None:
            lines += [f"{node.instance}: {m.name}: {m.problem.message}" for m in node.models if m.problem]
    return tuple(lines)
