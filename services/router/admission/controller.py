"""Admission: a request is validated, planned and stored as one command; or refused, and nothing is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from nats.aio.client import Client

from schemas import subjects
from schemas.commands import Ask, ChatMessage, Generate
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    ContextExceeded,
    InvalidRequest,
    ModelUnusable,
    RequestIdConflict,
    UnknownModel,
)
from schemas.events import RequestAccepted, RequestRefused
from schemas.nodes.lease import NodeLease
from schemas.replies import Result
from schemas.requests.chat import Tool
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.connection import check_payload
from services.chassis.nats.sharing import Turns
from services.chassis.registry.directory import Directory, Serving
from services.router.admission.absence import why_absent
from services.router.admission.planner import Plan, plan, weighs_costs
from services.router.endpoints.workers import Workers
from services.router.pending_results import PendingResults
from services.router.placement.service import Placement
from services.router.queued import parse_command, queued_command
from services.router.retention.evicted import surely_evicted
from services.router.tenancy.fair_queue import FairQueue
from services.router.tenancy.limits import TenantLimits
from services.tasks.capabilities import check_capable
from services.tasks.task_events import emit_queued
from services.tasks.token_count import certainly_fits, count_tokens

COUNT_TIMEOUT_S = 0.6
AT_ONCE = 32
"""So many requests of one tenant are being let in at a time; further ones wait for their turn. The broker,
which stores one after another, has no more of one tenant before those of others."""
TURN_PATIENCE_S = 30.0

log = get_logger("router.context")


@dataclass(frozen=True)
class Admission:
    """The outcome of admission: a result that exists already, or a place in the queue."""

    result: Result | None = None
    fresh: bool = True


class AdmissionController:
    """Lets requests in, once each."""

    def __init__(
        self,
        mesh: ServiceContext,
        directory: Directory,
        pending: PendingResults,
        placement: Placement,
        workers: Workers,
        limits: TenantLimits,
        fair_queue: FairQueue,
        default_strategy: str,
    ) -> None:
        self._limits = limits
        self._fair_queue = fair_queue
        self._mesh = mesh
        self._directory = directory
        self._pending = pending
        self._placement = placement
        self._workers = workers
        self._contexts = ContextCheck(mesh.client)
        self._default_strategy = default_strategy
        self._turns = Turns(AT_ONCE)

    async def admit(self, ask: Ask, request_id: str, *, new: bool = False) -> Admission:
        """Stores the request's command. Raises a typed error if it is refused. The id of a `new` request was
        made for it: there is no result of an earlier one to look for."""
        try:
            async with self._turns.of(subjects.owner_of(request_id), TURN_PATIENCE_S):
                return await self._admit(ask, request_id, new)
        except ChoirError as error:
            body = error.body(request_id)
            self._mesh.events.publish(RequestRefused, request_id=request_id, error=body)
            raise

    async def _admit(self, ask: Ask, request_id: str, new: bool) -> Admission:
        arrived_ns = time.perf_counter_ns()
        asked_before = ask.request_id is not None and not new
        if asked_before and (known := await self._pending.stored(request_id)) is not None:
            check_same(ask, request_id, known.fingerprint)
            return Admission(known, fresh=False)
        taken = self._limits.take(request_id, ask.priority, ask.timeout_s)
        try:
            admission = await self._enqueue(ask, request_id, arrived_ns)
        except BaseException:
            if taken:
                self._limits.give_back(request_id)
            raise
        if admission.result is not None:
            self._limits.give_back(request_id)
        return admission

    async def _enqueue(self, ask: Ask, request_id: str, arrived_ns: int) -> Admission:
        serving = self._directory.serving()
        try:
            one_each = (name for name in (ask.model, ask.synthesizer, ask.embedder) if name is not None)
            named = (*ask.models, *ask.summarize_with, *one_each)
            live = self._placement.live(named, serving)
            costs = costs_of(serving) if weighs_costs(ask) else {}
            rest = on_demand(serving) if ask.model is None and not ask.models else frozenset[str]()
            chosen = plan(ask, request_id, self._mesh.clock.now(), live, self._default_strategy, costs, rest)
        except (UnknownModel, ModelUnusable) as error:
            if await self._is_in_flight(ask, request_id):
                return Admission(fresh=False)
            if isinstance(error, UnknownModel):
                raise self._with_reason(error, [name for name in named if name not in serving]) from error
            raise
        check_somebody_can(ask, chosen.asked_first, serving)
        if ask.embedder is not None:
            check_embeds(ask.embedder, serving)
        payload = chosen.command.to_bytes()
        field = field_of(ask)
        check_payload(self._mesh.client, payload, field)
        await self._contexts.check(ask, chosen.asked_first, serving, field)
        asked_ns = time.perf_counter_ns()
        try:
            self._limits.weigh(request_id, len(payload))
            place = self._fair_queue.place(chosen.subject, request_id, ask.priority)
            receipt = await self._mesh.storage.enqueue(place, payload, message_id=request_id)
        except BrokerUnavailable as error:
            raise with_reason(error, self._directory.nodes) from error
        if receipt.duplicate:
            known = await self._check_duplicate(ask, request_id, receipt.sequence)
            return Admission(known, fresh=False)
        stored_ns = time.perf_counter_ns()
        self._emit_accepted(chosen, len(payload), ask.timeout_s, stored_ns - arrived_ns)
        if isinstance(chosen.command, Generate):
            emit_queued(self._mesh.events, chosen.command, stored_ns - asked_ns)
        return Admission()

    def _with_reason(self, error: UnknownModel, absent: list[str]) -> UnknownModel:
        """The same, and why, if there is somebody who has the model."""
        nodes, registered = self._directory.nodes, self._workers.registered
        why = why_absent(absent[0], nodes, registered) if absent else None
        message = error.message if why is None else f"{error.message}; {why}"
        return UnknownModel(message, field=error.field, known=error.known)

    async def _is_in_flight(self, ask: Ask, request_id: str) -> bool:
        """A request that was accepted stays so, even if meanwhile the last agent of its model has gone."""
        command = await queued_command(self._mesh.storage, request_id) if ask.request_id else None
        if command is not None:
            check_same(ask, request_id, command.fingerprint)
        return command is not None

    async def _check_duplicate(self, ask: Ask, request_id: str, sequence: int) -> Result | None:
        """The id is in flight, or was: under the same content it is the same request, else a conflict. The
        result, if it has one already."""
        stored = await self._mesh.storage.at(subjects.COMMANDS_STREAM, sequence)
        if stored is not None:
            check_same(ask, request_id, parse_command(stored.data).fingerprint)
            return None
        if (known := await self._pending.stored(request_id)) is not None:
            check_same(ask, request_id, known.fingerprint)
            return known
        if (command := await queued_command(self._mesh.storage, request_id)) is not None:
            check_same(ask, request_id, command.fingerprint)  # it was held, and is in its queue now
            return None
        raise await surely_evicted(self._mesh.storage, request_id)

    def _emit_accepted(self, chosen: Plan, size: int, timeout_s: float, admit_ns: int) -> None:
        self._mesh.events.publish(
            RequestAccepted,
            request_id=chosen.command.request_id,
            topology=chosen.topology,
            models=chosen.models,
            strategies=getattr(chosen.command, "strategies", ()),
            prompt_bytes=size,
            priority=chosen.command.priority,
            timeout_s=timeout_s,
            admit_duration_ns=admit_ns,
        )


class ContextCheck:
    """Refuses prompts longer than a model's context: asked at the door, before anything is stored."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def check(self, ask: Ask, models: tuple[str, ...], serving: Serving, field: str) -> None:
        """Raises ContextExceeded, naming `field`, if the messages are too long for one of `models`. What is
        no conversation the agents check themselves."""
        messages = ask.conversation
        if not messages:
            return
        doubtful = [model for model in models if not self._fits(ask, model, serving)]
        await asyncio.gather(*(self._count(messages, ask.tools, model, field) for model in doubtful))

    def _fits(self, ask: Ask, model: str, serving: Serving) -> bool:
        contexts = [served.context_tokens for _, served in serving.get(model, [])]
        return all(
            context is None or certainly_fits(ask.conversation, context, ask.tools) for context in contexts
        )

    async def _count(
        self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...], model: str, field: str
    ) -> None:
        try:
            count = await count_tokens(self._client, model, messages, COUNT_TIMEOUT_S, tools)
        except BrokerUnavailable as error:
            # Nobody could count in time: the agent itself checks again, and answers with the same error.
            log.warning("prompt not counted", model=model, why=error.message)
            return
        if count.prompt_tokens >= count.context_tokens:
            raise ContextExceeded(
                f"{field}: the prompt has {count.prompt_tokens} tokens, "
                f"and {model} has a context of {count.context_tokens}",
                field=field,
            )


def costs_of(serving: Serving) -> dict[str, float]:
    """Relative cost of each model: its parameters, as far as a lease says."""
    return {
        model: float(max((served.parameters or 0 for _, served in each), default=0))
        for model, each in serving.items()
    }


def on_demand(serving: Serving) -> frozenset[str]:
    """The models that nobody has loaded all the time."""
    return frozenset(
        model for model, each in serving.items() if all(served.on_demand is not None for _, served in each)
    )


def field_of(ask: Ask) -> str:
    """The field that says what is asked."""
    return next(name for name in ("prompt", "raw", "embed", "messages") if getattr(ask, name) is not None)


def check_somebody_can(ask: Ask, models: tuple[str, ...], serving: Serving) -> None:
    """Raises InvalidRequest if none of `models` can do what is asked, as far as their leases say. Of an
    ensemble those that can answer, and the others say why they do not."""
    refused: list[InvalidRequest] = []
    for model in models:
        served = serving.get(model, [])
        for _, one in served:
            try:
                check_capable(ask, one.capabilities, model)
            except InvalidRequest as error:
                refused.append(error)
            else:
                return
        if not served:
            return
    if refused:
        raise refused[0]


def check_embeds(model: str, serving: Serving) -> None:
    """Raises InvalidRequest if no agent of the model says that it has vectors, and each says what it can."""
    said = [one.capabilities for _, one in serving.get(model, [])]
    if said and all(said) and not any("embedding" in capabilities for capabilities in said):
        raise InvalidRequest(
            f"embedder: {model} has no vectors, as its agents say: name a model that has (`choir models`)",
            field="embedder",
        )


def with_reason(error: BrokerUnavailable, nodes: Iterable[NodeLease]) -> BrokerUnavailable:
    """The same failure, with what the controller of the broker says in its lease of why it stores nothing."""
    reasons = [
        node.problem.message for node in nodes if node.problem is not None and node.problem.code == error.code
    ]
    return BrokerUnavailable("; ".join((error.message, *reasons)), retry_after_s=error.retry_after_s)


def check_same(ask: Ask, request_id: str, fingerprint: str) -> None:
    """Raises RequestIdConflict if what is known under the id was another request."""
    if fingerprint and fingerprint != ask.fingerprint:
        raise RequestIdConflict(
            f"request_id: {subjects.bare_id(request_id)!r} already stands for a different request; "
            "take a new one",
            field="request_id",
        )
