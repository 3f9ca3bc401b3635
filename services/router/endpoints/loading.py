"""The endpoint `choir.load`: has agents load and unload models on demand, when an operator says so."""

from __future__ import annotations

import asyncio

import nats.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError, InvalidRequest, UnknownModel, error_from_body
from schemas.nodes.lease import NodeLease, OnDemand
from schemas.nodes.loading import LoadedAt, LoadedReply, ManageLoaded
from schemas.replies import ErrorReply
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.directory import Directory

ORDER_TIMEOUT_S = 25.0
"""Longer than an agent keeps who orders waiting."""

Places = dict[str, tuple[OnDemand, ChoirError | None]]
"""The agents that have a model on demand, by instance: how, and what keeps it from being asked there."""

log = get_logger("router.loading")


class Loading:
    """`load`."""

    def __init__(self, client: Client, directory: Directory) -> None:
        self._client = client
        self._directory = directory

    async def manage(self, request: ManageLoaded, caller: Caller) -> None:
        """Hands the order to the agents that it is for, and sends how they have the model then.

        Raises UnknownModel, InvalidRequest for a model that is not on demand, and the agents' own errors.
        """
        chosen = chosen_of(request, self._directory.nodes)
        log.info("ordered", action=request.action, model=request.model, agents=chosen, by=caller.tenant)
        told = await asyncio.gather(*(self._order(request, instance) for instance in chosen))
        await caller.send(LoadedReply(model=request.model, agents=tuple(told)))

    async def _order(self, request: ManageLoaded, instance: str) -> LoadedAt:
        order = request.model_copy(update={"instance": instance}).to_bytes()
        try:
            reply = await self._client.request(subjects.load_order(instance), order, timeout=ORDER_TIMEOUT_S)
        except nats.errors.Error as error:
            why = str(error) or type(error).__name__
            raise BrokerUnavailable(f"the agent {instance} has not answered in time: {why}") from error
        if subjects.ERROR_HEADER in (reply.headers or {}):
            raise error_from_body(ErrorReply.read(reply.data).error)
        try:
            return LoadedReply.read(reply.data).agents[0]
        except (ValidationError, IndexError) as error:
            raise BrokerUnavailable(f"the agent {instance} has answered something else") from error


def chosen_of(request: ManageLoaded, nodes: tuple[NodeLease, ...]) -> tuple[str, ...]:
    """The agents that an order is for: one to load, all that have it in memory to unload.

    Raises UnknownModel, InvalidRequest, and what keeps the model from being loaded.
    """
    places = _places(request.model, nodes)
    if request.instance is not None:
        if request.instance not in places:
            raise InvalidRequest(
                f"instance: {request.instance} does not have {request.model} on demand; "
                f"that do: {', '.join(places)}",
                field="instance",
            )
        places = {request.instance: places[request.instance]}
    if request.action == "unload":
        return tuple(name for name, (how, _) in places.items() if how.state != "unloaded")
    able = {name: how for name, (how, problem) in places.items() if problem is None}
    if not able:
        raise next(problem for _, problem in places.values() if problem is not None)
    return (min(able, key=lambda name: (able[name].state == "unloaded", -_free_bytes(name, nodes), name)),)


def _places(model: str, nodes: tuple[NodeLease, ...]) -> Places:
    """Where a model is on demand; raises if it is nowhere."""
    having = [(node, served) for node in nodes for served in node.models if served.name == model]
    found: Places = {}
    for node, served in having:
        if served.on_demand is not None:
            problem = None if served.problem is None else error_from_body(served.problem)
            if problem is not None and problem.code == "not_ready":  # which clients would wait for
                problem = InvalidRequest(f"model: {problem.message}", field="model")
            found[node.instance] = served.on_demand, problem
    if found:
        return found
    if having:
        agents = ", ".join(node.instance for node, _ in having)
        raise InvalidRequest(
            f"model: {model} is not on demand: it is loaded as long as its agents run ({agents}). An entry "
            "of [[agents]] with on_demand loads and unloads models of the store",
            field="model",
        )
    known = sorted({served.name for node in nodes for served in node.models if served.on_demand is not None})
    raise UnknownModel(
        f"model: no agent has {model!r}; on demand are: {', '.join(known) or 'none'}",
        field="model",
        known=tuple(known),
    )


def _free_bytes(instance: str, nodes: tuple[NodeLease, ...]) -> int:
    """The rest of an agent's budget."""
    demanded = [
        model.on_demand
        for node in nodes
        if node.instance == instance
        for model in node.models
        if model.on_demand is not None
    ]
    used = sum(each.memory_bytes for each in demanded if each.state != "unloaded")
    return demanded[0].budget_bytes - used if demanded else 0
