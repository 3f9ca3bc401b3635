"""Hands tasks over to agents that keep their beginnings: offered, claimed by whom has a free slot, given
once.

The agent that has pulled a command offers it to another and keeps it in progress meanwhile, in a slot of its
own. The other one claims it as soon as it has a free slot, and the reply is the command with the place where
its delivery is acknowledged: from then on it is in hand there, as if it had been pulled there. Whoever does
not claim in time (it is full, stands still, is dead) costs only that wait: the task is done where it is. The
broker sees one delivery, whoever ends it; a claim whose reply is lost is like an agent that dies with a
command in hand.

A command is offered once, in its first delivery, to one agent. Batch work waits for nobody: it goes to whom
has a free slot at once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import ValidationError

from schemas import subjects
from schemas.broker.catalog import ACK_WAIT_S
from schemas.commands import Generate
from schemas.message import Message
from schemas.nodes.prefixes import PREFIX_SIGNAL, ClaimTask, DeclineTask, OfferTask
from schemas.requests.origin import Origin, shared_blocks, told_blocks
from services.agent.backends import Backend
from services.agent.prefixes.choice import PrefillSpeed, best_holder, wait_s
from services.agent.prefixes.peers import Peers
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.process.supervise import log_failure
from services.chassis.work.delivery import Delivery
from services.chassis.work.loop import WorkLoop
from services.tasks.generate import BackendWorker, Generated, OnPiece

CLAIM_TIMEOUT_S = ACK_WAIT_S - 2
"""What comes later may be in the hands of somebody else by then."""
TELL_INTERVAL_S = 0.25
OFFER_BYTES = 12
MOST_WAITING = 256
"""Offers that wait here for a free slot: nobody makes more than there are slots elsewhere."""

Kept = Callable[[bool], tuple[Origin, ...]]
"""The origins of what is kept of a model; with True of what could be used at once."""

log = get_logger("agent.prefixes")


@dataclass
class Shared:
    """A model whose tasks are handed over: what is kept of it here, and the offers that wait for a slot."""

    kept: Kept
    loop: WorkLoop[Generate]
    speed: PrefillSpeed = field(default_factory=PrefillSpeed)
    waiting: deque[tuple[float, OfferTask]] = field(default_factory=deque)
    claiming: int = 0

    @property
    def free(self) -> int:
        """Free slots for which nothing was claimed."""
        return self.loop.free - self.claiming


@dataclass(frozen=True)
class Offered:
    """A delivery that waits here for another agent; `taken` says whether that one has it now."""

    msg: Msg
    taken: asyncio.Future[bool]


class HandingOver:
    """Offers the tasks of this agent to others, and claims theirs. A task waits for a `share` of the prefill
    that is saved."""

    def __init__(self, mesh: ServiceContext, share: float) -> None:
        self._client = mesh.client
        self._instance = mesh.identity.instance
        self._changed = mesh.changed
        self._share = share
        self._peers = Peers(mesh.client, mesh.connection, mesh.identity.instance)
        self._models: dict[str, Shared] = {}
        self._offered: dict[str, Offered] = {}
        self._subscription: Subscription | None = None
        self._steps: set[asyncio.Task[None]] = set()
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = 0.0

    async def start(self) -> None:
        """Hears of offers, and of what became of its own."""
        own = subjects.prefix_signal(self._instance)
        self._subscription = await self._client.subscribe(own, cb=self._on_signal)

    def add(self, model: str, kept: Kept, loop: WorkLoop[Generate]) -> None:
        """A model that is served here: of its tasks it may offer and claim some."""
        self._models[model] = shared = Shared(kept, loop)
        loop.on_free = partial(self._claim_next, shared)

    async def stop(self) -> None:
        """Claims and gives nothing more; returns when what was claimed is here."""
        if self._telling is not None:
            self._telling.cancel()
        self._peers.stop()
        for shared in self._models.values():
            while shared.waiting:
                _, offer = shared.waiting.popleft()
                self._decline(offer)
        for offered in list(self._offered.values()):
            _settle(offered, taken=False)
        if self._subscription is not None and not self._client.is_closed:
            await self._subscription.unsubscribe()
        await asyncio.gather(*self._steps, return_exceptions=True)

    # --- tasks of this agent --------------------------------------------------------------

    async def is_elsewhere(self, command: Generate, delivery: Delivery) -> bool:
        """Waits for the agent that keeps the beginning of a task, if there is one: whether that one has it
        now. If not, the task is to be done here."""
        shared, blocks = self._models.get(command.model), command.origin.blocks
        if shared is None or not blocks:
            return False
        self._peers.watch()
        if delivery.count != 1 or delivery.handed or delivery.maybe_poison or not delivery.msg.reply:
            return False
        own = _blocks(shared.kept(True))
        found = best_holder(blocks, own, self._peers.of(command.model))
        if found is None:
            return False
        holder, kept = found
        saved = kept - shared_blocks(blocks, own)
        patience_s = wait_s(saved, shared.speed.block_s, self._share)
        if not patience_s:
            return False
        taken = await self._is_taken(holder.instance, command, blocks[kept - 1], patience_s, delivery.msg)
        log.debug("offered", request_id=command.request_id, to=holder.instance, blocks=saved, taken=taken)
        return taken

    async def _is_taken(
        self, holder: str, command: Generate, block: str, patience_s: float, msg: Msg
    ) -> bool:
        number = secrets.token_urlsafe(OFFER_BYTES)
        offered = Offered(msg, asyncio.get_running_loop().create_future())
        offer = OfferTask(
            offer=number,
            instance=self._instance,
            model=command.model,
            block=block,
            wait_s=patience_s,
            patient=command.priority == "interactive",
        )
        self._offered[number] = offered
        try:
            await self._tell(holder, offer)
            await asyncio.wait([offered.taken], timeout=patience_s)
            return offered.taken.done() and offered.taken.result()
        finally:
            self._offered.pop(number, None)

    def note(self, command: Generate, generated: Generated) -> None:
        """A text is done: what its prompt took is measured, and others hear soon that it is kept here."""
        shared, blocks = self._models.get(command.model), command.origin.blocks
        if shared is None or not blocks:
            return
        shared.speed.note(
            len(blocks), generated.prompt_tokens, generated.prompt_tokens_reused, generated.prompt_eval_ns
        )
        if self._telling is None and self._peers.of(command.model):
            pause_s = max(0.0, self._told_at + TELL_INTERVAL_S - time.monotonic())
            self._telling = asyncio.get_running_loop().call_later(pause_s, self._tell_all)

    def _tell_all(self) -> None:
        self._telling, self._told_at = None, time.monotonic()
        self._changed()

    def told(self, model: str) -> tuple[str, ...]:
        """What the lease tells of the beginnings that are kept of a model."""
        shared = self._models.get(model)
        return () if shared is None else told_blocks(shared.kept(False))

    # --- tasks of others ------------------------------------------------------------------

    async def _on_signal(self, msg: Msg) -> None:
        try:
            signal = PREFIX_SIGNAL.validate_json(msg.data)
        except ValidationError as error:
            log.warning("unreadable", subject=msg.subject, faults=error.error_count())
            return
        match signal:
            case OfferTask():
                self._consider(signal)
            case DeclineTask():
                if (offered := self._offered.get(signal.offer)) is not None:
                    _settle(offered, taken=False)
            case ClaimTask():
                await self._give(signal, msg)

    def _consider(self, offer: OfferTask) -> None:
        shared = self._models.get(offer.model)
        if shared is None or not shared.loop.takes_work:
            self._decline(offer)
        elif shared.free > 0 and offer.block in _blocks(shared.kept(True)):
            self._claim(shared, offer)
        elif (
            offer.patient
            and len(shared.waiting) < MOST_WAITING
            and offer.block in _blocks(shared.kept(False))
        ):
            shared.waiting.append((time.monotonic() + offer.wait_s, offer))
        else:
            self._decline(offer)

    def _claim_next(self, shared: Shared) -> None:
        """A slot is free: for the first of the offers that wait whose beginning could be used now."""
        now_s = time.monotonic()
        waiting = [one for one in shared.waiting if one[0] > now_s]
        shared.waiting.clear()
        if not waiting:
            return
        usable = _blocks(shared.kept(True))
        for until_s, offer in waiting:
            if shared.free > 0 and shared.loop.takes_work and offer.block in usable:
                self._claim(shared, offer)
            else:
                shared.waiting.append((until_s, offer))

    def _claim(self, shared: Shared, offer: OfferTask) -> None:
        shared.claiming += 1
        self._spawn(self._take(shared, offer))

    async def _take(self, shared: Shared, offer: OfferTask) -> None:
        try:
            whom = subjects.prefix_signal(offer.instance)
            reply = await self._client.request(
                whom, ClaimTask(offer=offer.offer).to_bytes(), timeout=CLAIM_TIMEOUT_S
            )
        except nats.errors.Error as error:
            log.warning("no word of a claim", of=offer.instance, why=str(error) or type(error).__name__)
            return
        finally:
            shared.claiming -= 1
        headers = reply.headers or {}
        acknowledged = headers.get(subjects.HANDED_HEADER)
        if reply.data and acknowledged:
            subject = headers.get(subjects.SUBJECT_HEADER, "")
            shared.loop.adopt(Msg(self._client, subject, acknowledged, reply.data, dict(headers)))
        else:
            self._claim_next(shared)

    async def _give(self, claim: ClaimTask, msg: Msg) -> None:
        """To the first who claims it in time, once."""
        offered = self._offered.pop(claim.offer, None)
        if offered is None or not _settle(offered, taken=True):
            await msg.respond(b"")
            return
        headers = {
            **(offered.msg.headers or {}),
            subjects.HANDED_HEADER: offered.msg.reply,
            subjects.SUBJECT_HEADER: offered.msg.subject,
        }
        await self._client.publish(msg.reply, offered.msg.data, headers=headers)

    def _decline(self, offer: OfferTask) -> None:
        self._spawn(self._tell(offer.instance, DeclineTask(offer=offer.offer)))

    async def _tell(self, instance: str, signal: Message) -> None:
        try:
            await self._client.publish(subjects.prefix_signal(instance), signal.to_bytes())
        except nats.errors.Error as error:
            log.warning("not told", instance=instance, why=str(error) or type(error).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="hand over")
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        task.add_done_callback(log_failure)


class PrefixWorker(BackendWorker):
    """Serves the model of a backend, and lets an agent have a task that keeps more of its beginning."""

    def __init__(
        self,
        mesh: ServiceContext,
        backend: Backend,
        handing_over: HandingOver,
        model_sha256: Callable[[], str | None],
    ) -> None:
        super().__init__(
            mesh, backend, capabilities=lambda: backend.info.capabilities, model_sha256=model_sha256
        )
        self._handing_over = handing_over

    async def is_elsewhere(self, command: Generate, delivery: Delivery) -> bool:
        """Whether another agent has the task now."""
        return await self._handing_over.is_elsewhere(command, delivery)

    async def generate(self, command: Generate, on_piece: OnPiece | None) -> Generated:
        """As any backend; what the prompt took is measured."""
        generated = await super().generate(command, on_piece)
        self._handing_over.note(command, generated)
        return generated


def _blocks(kept: Iterable[Origin]) -> set[str]:
    return {block for origin in kept for block in origin.blocks}


def _settle(offered: Offered, *, taken: bool) -> bool:
    """Says what became of an offer, unless that is known already."""
    if offered.taken.done():
        return False
    offered.taken.set_result(taken)
    return True
