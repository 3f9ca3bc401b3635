"""What the handlers of all dialects have in hand: the mesh, the settings, the models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing

from nats.aio.client import Client

from schemas import subjects
from schemas.commands import Ask
from schemas.errors import ChoirError, InvalidRequest, UnknownModel, UnknownRequest
from schemas.events import RequestShared
from schemas.replies import Result, TokenChunk
from schemas.requests.responses import ResponseRecord
from schemas.subjects import owned_id
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.telemetry.events import EventLog
from services.client.client import Choir
from services.gateway.access.caller import Caller, current_caller
from services.gateway.access.keyring import Keyring
from services.gateway.http.exchange import Exchange, current_exchange
from services.gateway.http.figures import Figures
from services.gateway.requests.ensembles import without_tag
from services.gateway.requests.front_end_tasks import is_front_end_task
from services.gateway.requests.identity import is_new
from services.gateway.requests.kept import Kept
from services.gateway.requests.models import ModelList, Target, absent
from services.gateway.requests.outcome import usage
from services.gateway.requests.result_cache import ResultCache, same_each_time, without_cache
from services.gateway.requests.retries import Retries
from services.gateway.settings import GatewaySection

log = get_logger("gateway.context")


class GatewayContext:
    """The gateway, as a handler sees it.

    `records` are what is kept of answers that clients come back to, by request id. `client` is the connection
    to the mesh's buckets, `kept` what may answer equal requests. `batch_waits` is set when a batch has begun,
    for who works on them. `now` is the time for all gateways, whatever their hosts' clocks say:
    by that they count together what keys use, and end what ends.
    """

    def __init__(
        self,
        mesh: Choir,
        settings: GatewaySection,
        client: Client,
        events: EventLog,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._mesh = mesh
        self._events = events
        self.settings = settings
        self.now = now
        self.keyring = Keyring(client, now)
        self.models = ModelList(mesh, settings.sets)
        self.figures = Figures()
        self.retries = Retries(lambda: self.mesh, client, settings.retry_grace_s)
        self.records = Bucket(client, subjects.RESPONSES_BUCKET, messages(ResponseRecord))
        self.client = client
        self.batch_waits = asyncio.Event()
        self.kept = Kept(settings.cache_bytes)
        self.results = ResultCache(self.kept, settings.cache_keep_s)
        self.started_at_s = time.time()
        self._giving_up: set[asyncio.Task[None]] = set()
        self._last: list[Callable[[], Awaitable[None]]] = []

    @property
    def mesh(self) -> Choir:
        """The mesh, asked in the name of whose request is being answered."""
        caller = current_caller.get()
        if caller.key is None:
            return self._mesh
        return self._mesh.as_tenant(caller.tenant, caller.key.id, caller.secret)

    @property
    def tenant(self) -> str:
        """Whose request is being answered."""
        return current_caller.get().tenant

    async def target_of(self, name: str, *, again: bool = False) -> Target:
        """What a model's name stands for. Whoever asks `again` may name one that is not there at present: the
        request that was asked before has its text all the same.

        Raises UnknownModel.
        """
        try:
            return await self.models.find(name)
        except UnknownModel:
            may_ask = current_caller.get().may_ask(without_tag(name))
            if again and may_ask and (target := absent(name)) is not None:
                return target
            raise

    async def spared(self, ask: Ask, target: Target) -> Ask:
        """The same request; one of a chat front end for a title or for tags goes to the `task_model`, and not
        to an ensemble.

        Raises UnknownModel if that one is not there.
        """
        task_model = self.settings.task_model
        if task_model is None or target.ensemble is None or not ask.conversation:
            return ask
        if not is_front_end_task(ask.conversation[-1].content):
            return ask
        one = {"models": (), "strategies": (), **(await self.models.known(task_model)).ask_fields}
        return ask.model_copy(update=one)

    def follow(
        self, ask: Ask, *, background: bool = False, share: bool = True, settled: bool = False
    ) -> AsyncGenerator[TokenChunk | Result, None]:
        """The replies to a request with an id: chunks if it streams, then the result; its error is raised.

        If the HTTP client hangs up meanwhile, the request is cancelled, unless it is for the `background`.
        Unless it has to have a result of its own (`share`) it may be answered by an equal one's; where its
        client comes back to it, by one that is `settled`: there already, and under this id too by then.
        """
        ask, known = self._shared(of_its_class(ask), share=share and not background, settled=settled)
        if known is not None:
            return _only(known)
        new = is_new(ask.request_id)
        coming = (
            self._replies(ask, new)
            if ask.cache
            else self.mesh.follow(ask, new=new, repeats=self.retries.repeats)
        )
        return self._watched(coming, ask, background)

    async def _replies(self, ask: Ask, new: bool) -> AsyncGenerator[TokenChunk | Result, None]:
        """The replies to a request that takes an equal one's result, if the router knows of such."""
        try:
            async with aclosing(self.mesh.follow(ask, new=new, repeats=self.retries.repeats)) as replies:
                async for reply in replies:
                    yield reply
        except InvalidRequest as error:
            again = self.mesh.follow(without_cache(ask, error), repeats=self.retries.repeats)
            async with aclosing(again) as replies:
                async for reply in replies:
                    yield reply

    async def take_up(
        self, ask: Ask, *, background: bool = False
    ) -> AsyncGenerator[TokenChunk | Result, None]:
        """The same for a request that was asked before, from its first chunk on; if nobody knows of it, it is
        asked."""
        try:
            async with aclosing(self._watched(self.mesh.resume(ask), ask, background)) as replies:
                async for reply in replies:
                    yield reply
        except UnknownRequest:
            async with aclosing(self.follow(ask, background=background)) as replies:
                async for reply in replies:
                    yield reply

    async def _watched(
        self, coming: AsyncGenerator[TokenChunk | Result, None], ask: Ask, background: bool
    ) -> AsyncGenerator[TokenChunk | Result, None]:
        exchange, request_id = None if background else current_exchange.get(), ask.request_id
        if exchange is not None and request_id is not None:
            exchange.in_work.add(request_id)
        budget, passed = current_caller.get().budget, 0
        try:
            async with aclosing(coming) as replies:
                async for reply in replies:
                    if isinstance(reply, Result):
                        passed = passed if reply.error is not None else 0
                        self._keep(ask, reply)
                        await _charge(reply)
                        if exchange is not None:
                            exchange.in_work.discard(reply.request_id)
                    else:
                        passed += 1
                        if ask.cache:
                            _note_cache_use(reply.cache or "miss")
                    yield reply
        finally:
            if budget is not None and passed:
                # Text without a whole result: whoever hangs up before its end has had it.
                self._run_in_background(budget.charge(passed), f"count {request_id}")
            if exchange is not None and request_id is not None:
                exchange.in_work.discard(request_id)

    async def result_of(
        self, ask: Ask, *, background: bool = False, share: bool = True, settled: bool = False
    ) -> Result:
        """The result of a request that has an id; its error is raised. Cancelled and shared as `follow`
        says."""
        ask, known = self._shared(of_its_class(ask), share=share and not background, settled=settled)
        if known is not None:
            return known
        exchange, request_id = None if background else current_exchange.get(), ask.request_id
        if exchange is not None and request_id is not None:
            exchange.in_work.add(request_id)
        try:
            try:
                result = await self.mesh.result_of(ask, new=is_new(request_id), repeats=self.retries.repeats)
            except InvalidRequest as error:
                result = await self.mesh.result_of(without_cache(ask, error), repeats=self.retries.repeats)
        finally:
            if exchange is not None and request_id is not None:
                exchange.in_work.discard(request_id)
        self._keep(ask, result)
        await _charge(result)
        return result

    def _shared(self, ask: Ask, *, share: bool, settled: bool) -> tuple[Ask, Result | None]:
        """The request as the mesh is asked it, and its result if there is an equal one's here."""
        if ask.cache or (same := same_each_time(ask)) is None:
            _note_cache_use("off")
            return ask, None
        exchange = current_exchange.get()
        if not share or exchange is None or not self.takes_cached(exchange):
            _note_cache_use("off")
            return same, None
        tenant, request_id = current_caller.get().tenant, same.request_id or ""
        known = None
        if exchange.has_made(request_id) and not settled:
            known = self.results.get(tenant, same, self.models.identity(same.model))
        if known is None:
            return same.model_copy(update={"cache": True, "cache_settled": settled}), None
        found = known[0].standing_for(request_id, "hit")
        source = found.cached_from or ""
        exchange.known = (source, known[1])
        self.record_shared(request_id, same.model or "", source)
        return same, found

    def takes_cached(self, exchange: Exchange) -> bool:
        """Whether a request may be answered by what is there: its client, its key and this gateway say so."""
        key = current_caller.get().key
        return self.settings.cache and exchange.wants_cached and (key is None or key.cache)

    def record_shared(self, request_id: str, model: str, source: str) -> None:
        """Says, in the reply, in the figures and to the mesh, that a request is answered from memory, by the
        result of `source`."""
        _note_cache_use("hit", source)
        self.figures.cache["hit"] += 1
        exchange, tenant = current_exchange.get(), current_caller.get().tenant
        self._events.publish(
            RequestShared,
            request_id=owned_id(tenant, request_id),
            topology="single",
            models=(model,),
            cache="hit",
            cached_from=owned_id(tenant, source),
            total_duration_ns=0 if exchange is None else time.perf_counter_ns() - exchange.began_ns,
        )

    def _keep(self, ask: Ask, result: Result) -> None:
        """What there is to do with a result that the mesh has given."""
        if ask.cache:
            use = result.cache or "off"
            _note_cache_use(use, result.cached_from)
            self.figures.cache[use] += 1
            identity = self.models.identity(ask.model)
            self.results.put(current_caller.get().tenant, ask, result, identity)
            self.figures.cache_bytes = self.kept.bytes

    def check_background(self) -> None:
        """Raises InvalidRequest for a key whose tokens are counted, or its batch work: what goes on in the
        background would go uncounted."""
        caller = current_caller.get()
        if caller.key is None:
            return
        limits = caller.key.limits
        if limits.tokens_per_minute is not None:
            limited = "a limit of tokens"
        elif limits.batch_share is not None and caller.priority == "batch":
            limited = "a part of the queue for its batch work"
        else:
            return
        raise InvalidRequest(
            f"background: a key with {limited} has no work done in the background", field="background"
        )

    def give_up(self, caller: Caller, request_id: str) -> None:
        """Has a caller's request cancelled that nobody waits for any more; returns at once."""
        self.figures.given_up += 1
        self._run_in_background(self._cancel(caller, request_id), f"cancel {request_id}")

    def abandon(self, request_ids: Iterable[str | None]) -> None:
        """Has those of these requests cancelled that are in work for the current exchange: no reply tells of
        them any more. Returns at once."""
        exchange, caller = current_exchange.get(), current_caller.get()
        for request_id in () if exchange is None else exchange.in_work.intersection(request_ids):
            self._run_in_background(self._cancel(caller, request_id), f"cancel {request_id}")

    def _run_in_background(self, work: Coroutine[None, None, None], name: str) -> None:
        """Has something done for which no client waits; the gateway ends after that."""
        task = asyncio.create_task(work, name=name)
        self._giving_up.add(task)
        task.add_done_callback(self._giving_up.discard)

    async def _cancel(self, caller: Caller, request_id: str) -> None:
        current_caller.set(caller)
        try:
            if await self.retries.comes_back(request_id):
                return
            await self.mesh.cancel(request_id)
        except ChoirError as error:
            log.warning("a request was not cancelled", request_id=request_id, code=error.code)

    def at_end(self, end: Callable[[], Awaitable[None]]) -> None:
        """Has something ended with the gateway."""
        self._last.append(end)

    async def settle(self) -> None:
        """Returns when all that was given up has been cancelled, and what ends with the gateway has ended."""
        for end in self._last:
            await end()
        if self._giving_up:
            await asyncio.wait(tuple(self._giving_up))
        await self.keyring.settle()

    def log_unreachable(self, error: ChoirError) -> None:
        """The mesh does not answer, and the client is told something all the same."""
        log.warning("the mesh does not answer", code=error.code)


def of_its_class(ask: Ask) -> Ask:
    """The same request, of the class of the work for whoever asks."""
    priority = current_caller.get().priority
    return ask if priority == ask.priority else ask.model_copy(update={"priority": priority})


async def _charge(result: Result) -> None:
    """The key that asked has used what the result took, unless an equal one's was at hand."""
    budget = current_caller.get().budget
    if budget is not None and result.cached_from is None:
        took = usage(result)
        await budget.charge(took.prompt_tokens + took.generated_tokens)


def _note_cache_use(use: str, source: str | None = None) -> None:
    if (exchange := current_exchange.get()) is not None:
        exchange.note_cache_use(use, source)


async def _only(result: Result) -> AsyncGenerator[TokenChunk | Result, None]:
    yield result
