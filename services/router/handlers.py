"""What the router does with each kind of request."""

from __future__ import annotations

import time

from schemas import subjects
from schemas.commands import Ask, Cancel, Fetch
from schemas.errors import Cancelled as CancelledError
from schemas.errors import DeadlineExceeded, NotReady, UnknownRequest
from schemas.events import RequestCancelled, RequestReplied
from schemas.replies import Accepted, Cancelled, Result
from services.chassis.endpoints import Caller
from services.chassis.identity import new_id
from services.chassis.service import Mesh
from services.router.acceptance import Door, check_same
from services.router.queued import queued_command
from services.router.token_relay import TokenRelay
from services.router.waiting import Waiting

OVERTIME_S = 3.0
"""How long after a request's deadline its result is still waited for: whoever works on it ends it first."""


class Handlers:
    """`ask`, `submit`, `fetch` and `cancel`."""

    def __init__(self, mesh: Mesh, door: Door, waiting: Waiting) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._door = door
        self._waiting = waiting

    async def ask(self, ask: Ask, caller: Caller) -> None:
        """Stores the request, waits for its result, and sends it; before it the tokens, if asked for."""
        started = time.perf_counter_ns()
        request_id = ask.request_id or new_id()
        if ask.stream:
            async with TokenRelay.open(self._storage, request_id, caller) as relay:
                result = await self._admit_and_wait(ask, request_id, relay)
                await relay.finish(result)
        else:
            result = await self._admit_and_wait(ask, request_id, None)
        check_same(ask, request_id, result.fingerprint)
        await caller.send_result(result)
        duration_ns = time.perf_counter_ns() - started
        self._mesh.events.publish(
            RequestReplied, request_id=request_id, total_duration_ns=duration_ns, error=result.error
        )

    async def _admit_and_wait(self, ask: Ask, request_id: str, relay: TokenRelay | None) -> Result:
        with self._waiting.register(request_id) as waiter:
            admission = await self._door.admit(ask, request_id)
            if relay is not None:
                await relay.replay()
            if admission.result is not None:
                return admission.result
            result = await self._waiting.wait(request_id, waiter, ask.timeout_s + OVERTIME_S)
        return result or await self._end(ask, request_id)

    async def _end(self, ask: Ask, request_id: str) -> Result:
        """Nobody has ended the request in time: the router does, unless a result comes first.

        A request that was asked before with more patience goes on: only this client waits no longer.
        """
        error = DeadlineExceeded(f"no result within {ask.timeout_s} s")
        queued = await queued_command(self._storage, request_id)
        now = time.time()
        if queued is not None and now < queued.deadline_at_s:
            raise _not_ready(request_id)
        if queued is None:
            result = Result.unreadable(request_id, error, now)
        else:
            result = Result.failed(queued, error, now)
        if await self._storage.store_once(subjects.result(request_id), result.to_bytes()):
            return result
        return await self._waiting.stored(request_id) or result

    async def submit(self, ask: Ask, caller: Caller) -> None:
        """Stores the request and says under which id its result can be fetched."""
        request_id = ask.request_id or new_id()
        await self._door.admit(ask, request_id)
        await caller.send(Accepted(request_id=request_id))

    async def fetch(self, fetch: Fetch, caller: Caller) -> None:
        """Sends a result, waiting for it as long as the caller wants; before it the tokens, if asked for."""
        if fetch.stream:
            after = fetch.after_sequence
            async with TokenRelay.open(self._storage, fetch.request_id, caller, after) as relay:
                await relay.replay()
                result = await self._wait_for(fetch)
                await relay.finish(result)
        else:
            result = await self._wait_for(fetch)
        await caller.send_result(result)

    async def _wait_for(self, fetch: Fetch) -> Result:
        with self._waiting.register(fetch.request_id) as waiter:
            result = await self._waiting.stored(fetch.request_id)
            if result is None:
                if await queued_command(self._storage, fetch.request_id) is None:
                    return await self._stored_or_unknown(fetch.request_id)
                result = await self._waiting.wait(fetch.request_id, waiter, fetch.wait_s)
        if result is None:
            raise _not_ready(fetch.request_id)
        return result

    async def _stored_or_unknown(self, request_id: str) -> Result:
        """A command leaves the queue after its result is stored: a second look settles it."""
        result = await self._waiting.stored(request_id)
        if result is None:
            raise UnknownRequest(
                f"request_id: there is no request {request_id!r}, or its result is no longer kept",
                field="request_id",
            )
        return result

    async def cancel(self, cancel: Cancel, caller: Caller) -> None:
        """Makes 'cancelled' the request's result, unless it has one, and tells those who work on it."""
        request_id = cancel.request_id
        cancelled = False
        queued = await queued_command(self._storage, request_id)
        if queued is None:
            await self._stored_or_unknown(request_id)
        else:
            error = CancelledError("cancelled by the client")
            result = Result.failed(queued, error, time.time())
            cancelled = await self._storage.store_once(subjects.result(request_id), result.to_bytes())
            await self._mesh.client.publish(subjects.cancel_signal(request_id))
        if cancelled:
            self._mesh.events.publish(RequestCancelled, request_id=request_id)
        await caller.send(Cancelled(request_id=request_id, cancelled=cancelled))


def _not_ready(request_id: str) -> NotReady:
    return NotReady(f"request {request_id} is still being worked on", retry_after_s=1.0)
