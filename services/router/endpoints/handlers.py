"""The endpoints `choir.ask`, `choir.submit`, `choir.fetch` and `choir.cancel`."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from schemas import subjects
from schemas.commands import Ask, Cancel, Fetch
from schemas.errors import Cancelled as CancelledError
from schemas.errors import DeadlineExceeded, InvalidRequest, NotReady
from schemas.events import RequestCancelled, RequestReplied
from schemas.replies import Accepted, Cancelled, Result
from services.chassis.context import ServiceContext
from services.chassis.identity import new_id
from services.chassis.nats.endpoints import Caller
from services.chassis.nats.sharing import Turns
from services.chassis.telemetry.tracing import enter
from services.chassis.work.attempts import out_of_time
from services.router.admission.controller import (
    AT_ONCE,
    TURN_PATIENCE_S,
    AdmissionController,
    check_same,
)
from services.router.admission.equal_requests import EqualRequests
from services.router.admission.planner import NamedEnsembles
from services.router.pending_results import MakingRoom, PendingResults
from services.router.queued import parse_command, queued_command, queued_message
from services.router.retention.evicted import why_unknown
from services.router.tenancy.limits import TenantLimits
from services.router.token_relay import TokenRelay
from services.tasks.storing import store_result

OVERTIME_S = 3.0
"""How long after a request's deadline its result is still waited for: whoever works on it ends it first."""


class Handlers:
    """`ask`, `submit`, `fetch` and `cancel`."""

    def __init__(
        self,
        mesh: ServiceContext,
        admission: AdmissionController,
        pending: PendingResults,
        ensembles: NamedEnsembles,
        equal: EqualRequests,
        limits: TenantLimits,
        making_room: MakingRoom,
    ) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._admission = admission
        self._pending = pending
        self._ensembles = ensembles
        self._equal = equal
        self._limits = limits
        self._making_room = making_room
        self._turns = Turns(AT_ONCE)

    async def ask(self, ask: Ask, caller: Caller) -> None:
        """Stores the request, waits for its result, and sends it; before it the tokens, if asked for."""
        started = time.perf_counter_ns()
        _check_streams(ask.stream, caller, subjects.STREAM_ASK)
        ask = self._ensembles.resolve(ask)
        request_id = caller.owned(ask.request_id or new_id())
        own = partial(self._own_result, ask, request_id, caller)
        result = await (self._equal.result_for(ask, request_id, caller, own) if ask.cache else own())
        check_same(ask, request_id, result.fingerprint)
        if ask.cache_settled and not await self._keep(result, started, caller):
            result = await own()
        await caller.send_result(result)
        if result.cached_from is None:
            self._emit_replied(result, started)
        elif not ask.cache_settled:
            await self._keep(result, started, caller)

    async def _keep(self, result: Result, started_ns: int, caller: Caller) -> bool:
        """Stores a result that is an equal request's under the id of this one; False where that fails."""
        if result.cached_from is None:
            return True
        return await self._equal.keep(result, time.perf_counter_ns() - started_ns, new=caller.new)

    async def _own_result(
        self, ask: Ask, request_id: str, caller: Caller, attempts_before: int = 0
    ) -> Result:
        """The result of the request itself; before it the tokens, if asked for."""
        if not ask.stream:
            return await self._admit_and_wait(ask, request_id, None, new=caller.new)
        async with TokenRelay.open(
            self._storage, request_id, caller, attempts_before=attempts_before
        ) as relay:
            result = await self._admit_and_wait(ask, request_id, relay, new=caller.new)
            await relay.finish(result)
            self._charge(request_id, result, relay)
            return result

    def _charge(self, request_id: str, result: Result, relay: TokenRelay) -> None:
        """An error without answers tells of no tokens; the text that came before it was generated all the
        same."""
        if result.error is not None and not result.answers:
            self._limits.charge_text(request_id, relay.passed)

    def _emit_replied(self, result: Result, started_ns: int, endpoint: str = "ask") -> None:
        self._mesh.events.publish(
            RequestReplied,
            request_id=result.request_id,
            total_duration_ns=time.perf_counter_ns() - started_ns,
            error=result.error,
            endpoint=endpoint,
        )

    async def _join_trace(self, request_id: str) -> None:
        """A request that was asked before has its trace: whoever asks for it again joins that one."""
        stored = await self._storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        if stored is not None and stored.traceparent is not None:
            enter(self._mesh.tracing.follow(stored.traceparent))

    async def _admit_and_wait(
        self, ask: Ask, request_id: str, relay: TokenRelay | None, *, new: bool
    ) -> Result:
        with self._pending.register(request_id) as waiter:
            admission = await self._admission.admit(ask, request_id, new=new)
            if relay is not None:
                await relay.replay(new=new)
            if admission.result is not None:
                await self._join_trace(request_id)
                return admission.result
            with self._waits(ask, request_id):
                result = await self._pending.wait(request_id, waiter, ask.timeout_s + OVERTIME_S)
            if result is not None and not admission.fresh:
                await self._join_trace(request_id)
        return result or await self._end(ask, request_id)

    def _waits(self, ask: Ask, request_id: str) -> AbstractContextManager[None]:
        """Who waits for equal ones too keeps its place: they would ask for the same anew."""
        tenant = subjects.owner_of(request_id)
        return nullcontext() if ask.cache else self._making_room.waits(tenant, request_id)

    async def _end(self, ask: Ask, request_id: str) -> Result:
        """Nobody has ended the request in time: the router does, unless a result comes first.

        A request that was asked before with more patience goes on: only this client waits no longer.
        """
        error = DeadlineExceeded(f"no result within {ask.timeout_s} s")
        message = await queued_message(self._storage, request_id)
        queued = None if message is None else parse_command(message.data)
        now = self._mesh.clock.now()
        if queued is not None and now < queued.deadline_at_s:
            raise _not_ready(request_id)
        if message is None or queued is None:
            result = Result.unreadable(request_id, error, now)
        else:
            result = Result.failed(queued, await out_of_time(self._storage, message.sequence, error), now)
        if await store_result(self._mesh, result):
            return result
        return await self._pending.stored(request_id) or result

    async def submit(self, ask: Ask, caller: Caller) -> None:
        """Stores the request and says under which id its result can be fetched."""
        request_id = ask.request_id or new_id()
        await self._admission.admit(self._ensembles.resolve(ask), caller.owned(request_id))
        await caller.send(Accepted(request_id=request_id))

    async def fetch(self, fetch: Fetch, caller: Caller) -> None:
        """Sends a result, waiting for it as long as the caller wants; before it the tokens, if asked for."""
        started = time.perf_counter_ns()
        _check_streams(fetch.stream, caller, subjects.STREAM_FETCH)
        own_id = caller.owned(fetch.request_id)
        request_id = self._equal.leader_of(own_id)
        if fetch.stream:
            after = fetch.after_sequence
            async with TokenRelay.open(self._storage, request_id, caller, after, told_as=own_id) as relay:
                await relay.replay()
                result = await self._wait_for(request_id, fetch.wait_s, caller)
                await relay.finish(result)
                self._charge(request_id, result, relay)
        else:
            result = await self._wait_for(request_id, fetch.wait_s, caller)
        if request_id != own_id:
            if result.error is not None:
                raise _not_ready(own_id)
            await caller.send_result(result.standing_for(own_id, "shared"))
            return
        await self._join_trace(request_id)
        await caller.send_result(result)
        self._emit_replied(result, started, "fetch")

    async def _wait_for(self, request_id: str, wait_s: float, caller: Caller) -> Result:
        with self._pending.register(request_id) as waiter:
            async with self._turns.of(caller.tenant, TURN_PATIENCE_S):
                result = await self._pending.stored(request_id)
                if result is None and await queued_command(self._storage, request_id) is None:
                    return await self._stored_or_unknown(request_id)
            if result is None:
                with self._making_room.waits(caller.tenant, request_id):
                    result = await self._pending.wait(request_id, waiter, wait_s)
        if result is None:
            raise _not_ready(request_id)
        return result

    async def _stored_or_unknown(self, request_id: str) -> Result:
        """A command leaves the queue after its result is stored: a second look settles it."""
        result = await self._pending.stored(request_id)
        if result is None:
            raise await why_unknown(self._storage, request_id)
        return result

    async def cancel(self, cancel: Cancel, caller: Caller) -> None:
        """Makes 'cancelled' the request's result, unless it has one, and tells those who work on it."""
        request_id = caller.owned(cancel.request_id)
        if self._equal.leave(request_id):
            await caller.send(Cancelled(request_id=cancel.request_id, cancelled=True))
            return
        async with self._turns.of(caller.tenant, TURN_PATIENCE_S):
            cancelled = await self._cancel(request_id)
        if cancelled:
            self._mesh.events.publish(RequestCancelled, request_id=request_id)
        await caller.send(Cancelled(request_id=cancel.request_id, cancelled=cancelled))

    async def _cancel(self, request_id: str) -> bool:
        """Whether 'cancelled' is the request's result now."""
        queued = await queued_message(self._storage, request_id)
        if queued is None:
            await self._stored_or_unknown(request_id)
            return False
        enter(self._mesh.tracing.follow(queued.traceparent))
        error = CancelledError("cancelled by the client")
        result = Result.failed(parse_command(queued.data), error, self._mesh.clock.now())
        cancelled = await store_result(self._mesh, result)
        await self._mesh.client.publish(subjects.cancel_signal(request_id))
        return cancelled


def _check_streams(stream: bool, caller: Caller, where: str) -> None:
    """Several messages go only to who asks for them where a broker lets several through."""
    if stream and not caller.streams:
        raise InvalidRequest(
            f"stream: text that is to come piece by piece is asked for on {where}", field="stream"
        )


def _not_ready(request_id: str) -> NotReady:
    return NotReady(f"request {subjects.bare_id(request_id)} is still being worked on", retry_after_s=1.0)
