"""Two agents of a model on a real broker: a task goes to the one that keeps its beginning, or to anybody."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import (
    enqueue,
    events,
    eventually,
    generate,
    open_mesh,
    queue_is_empty,
    settled,
)
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.commands import ChatMessage, Generate
from schemas.events import TaskCompleted, TaskPulled
from schemas.nodes.prefixes import PREFIX_SIGNAL, ClaimTask, DeclineTask, OfferTask
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.agent.backends.llama_cpp import LlamaCpp
from services.agent.prefixes import choice
from services.agent.prefixes.handing_over import HandingOver
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.agent.tests.test_agent import result_of
from services.chassis.registry.lease import Lease
from services.chassis.work.tests.test_loop import impatient_model
from services.engine.decode.batch import Batch

SYSTEM = ChatMessage(role="system", content="You know all animals and what they eat. " * 40)
FIRST = (SYSTEM, ChatMessage(role="user", content="What is the tallest animal? Say why. " * 8))
SECOND = (
    *FIRST,
    ChatMessage(role="assistant", content="The giraffe, by far."),
    ChatMessage(role="user", content="And the smallest?"),
)
THIRD = (*SECOND, ChatMessage(role="user", content="Are you sure?"))
SHORT = Sampling(max_tokens=2, temperature=0)
ENDLESS = Sampling(max_tokens=1_000, temperature=0)
HOLDER, OTHER, NOBODY = "agent-1", "agent-2", "agent-3"
MORE_THAN_ITS_PLACES = 8
"""More tasks than a holder of two slots can have asked the broker for."""
PATIENT_S = 150.0
"""Longer than any machine stands still: who waits so long has waited for a word."""
STEP_S = 0.05
"""So that ENDLESS tokens take most of a minute."""
SLOW_BLOCK_S, QUICK_BLOCK_S = 1_000.0, 0.05
"""What a block of a prompt takes: a task waits for PATIENT_S, or for some tenths of a second."""


class Mesh:
    """Agents with their leases, and what they offer one another."""

    def __init__(self, client: Client, model_path: Path, stack: AsyncExitStack) -> None:
        self.client = client
        self.mesh = open_mesh(client)
        self.model = "alpha"
        self._model_path = model_path
        self._stack = stack
        self.heard: list[OfferTask | DeclineTask | ClaimTask] = []

    async def listen(self) -> None:
        """Hears what agents say to one another."""

        async def hear(msg: Msg) -> None:
            self.heard.append(PREFIX_SIGNAL.validate_json(msg.data))

        await self.client.subscribe(subjects.ALL_PREFIX_SIGNALS, cb=hear)

    async def agent(self, instance: str, *, slots: int = 2, **section: Any) -> Agent:
        """An agent that works until the end of the test."""
        return await self._stack.enter_async_context(self.working(instance, slots, **section))

    @asynccontextmanager
    async def working(self, instance: str, slots: int = 2, **section: Any) -> AsyncIterator[Agent]:
        """An agent that works for as long as the context is open."""
        mesh = open_mesh(self.client, "agent", instance)
        agent = Agent(AgentSection.model_validate(self.section(instance, slots, **section)))
        lease = Lease(mesh.client, mesh.identity, agent.load)
        mesh.on_change(lease.renew_soon, lease.renew)
        await agent.start(mesh)
        await lease.start()
        await settled(self.client)
        try:
            yield agent
        finally:
            await lease.stop()
            await agent.stop()

    def section(self, instance: str, slots: int = 2, **section: Any) -> dict[str, Any]:
        """The settings of an agent."""
        model = {"name": self.model, "path": str(self._model_path), "slots": slots, "context_tokens": 4096}
        return {"name": instance, "backend": "llama_cpp", "models": [model], "threads": 1, **section}

    async def knows(self, agent: Agent, *instances: str, block_s: float = SLOW_BLOCK_S) -> HandingOver:
        """Returns when an agent has heard what others keep. It takes itself for so slow."""
        handing_over = handing_over_of(agent)
        handing_over._peers.watch()

        def heard() -> bool:
            return {one.instance for one in handing_over._peers.of(self.model) if one.blocks} >= set(
                instances
            )

        await eventually(heard)
        handing_over._models[self.model].speed.block_s = block_s
        return handing_over

    async def ask(self, request_id: str, messages: tuple[ChatMessage, ...], **fields: Any) -> None:
        command = generate(
            request_id, self.model, messages=messages, timeout_s=300, **{"sampling": SHORT} | fields
        )
        await enqueue(self.mesh, command)

    async def result(self, request_id: str) -> Result:
        return await eventually(lambda: result_of(self.mesh, request_id))

    async def answered(self, request_id: str, messages: tuple[ChatMessage, ...], **fields: Any) -> str:
        """By whom a request is answered."""
        await self.ask(request_id, messages, **fields)
        return answerer(await self.result(request_id))

    def said(self, kind: type) -> list[Any]:
        return [signal for signal in self.heard if isinstance(signal, kind)]


def answerer(result: Result) -> str:
    assert result.error is None, result.error
    return result.answers[0].instance


def handing_over_of(agent: Agent) -> HandingOver:
    assert agent._handing_over is not None
    return agent._handing_over


@pytest_asyncio.fixture
async def mesh(connection: Client, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    """The holder has answered the first turn of a conversation; nobody else is there yet."""
    monkeypatch.setattr(choice, "LONGEST_WAIT_S", PATIENT_S)
    async with AsyncExitStack() as stack:
        mesh = Mesh(connection, model_path, stack)
        await mesh.listen()
        yield mesh


def slow_down(agent: Agent, model: str) -> None:
    """Each step of a model takes some time from now on: a text of many tokens does not end by itself."""
    serving = next(one for one in agent._serving if one.model.name == model)
    assert isinstance(serving.backend, LlamaCpp)
    context = serving.backend._engine._context
    decode = context.decode

    def decode_slowly(batch: Batch) -> int:
        time.sleep(STEP_S)
        return decode(batch)

    context.decode = decode_slowly  # type: ignore[method-assign]


async def until(condition: Callable[[], object], attempt: Callable[[int], Any]) -> None:
    """Tries anew until chance has let something happen: the broker gives a command to whom it likes."""
    number = 0
    while not condition():
        await attempt(number)
        number += 1


async def test_the_second_turn_of_a_conversation_goes_to_the_agent_that_has_done_the_first(
    mesh: Mesh,
) -> None:
    await mesh.agent(HOLDER)
    assert await mesh.answered("first", FIRST) == HOLDER
    other = await mesh.agent(OTHER)
    await mesh.knows(other, HOLDER)

    async def second_turn(number: int) -> None:
        result = f"r{number}"
        assert await mesh.answered(result, SECOND) == HOLDER
        (answer,) = (await mesh.result(result)).answers
        assert answer.prompt_tokens_reused > 0.8 * answer.prompt_tokens

    await until(lambda: mesh.said(OfferTask), second_turn)
    offer, claim = mesh.said(OfferTask)[0], mesh.said(ClaimTask)[0]
    assert (offer.instance, claim.offer) == (OTHER, offer.offer)
    await eventually(lambda: queue_is_empty(mesh.client))
    assert {one.delivery for one in await events(mesh.client) if isinstance(one, TaskPulled)} == {1}


async def test_what_one_tenant_has_asked_is_of_no_use_to_another(mesh: Mesh) -> None:
    """Neither from agent to agent nor within one."""
    await mesh.agent(HOLDER)
    assert await mesh.answered("ann=first", FIRST) == HOLDER
    assert await mesh.answered("bob=first", FIRST) == HOLDER
    (answer,) = (await mesh.result("bob=first")).answers
    assert answer.prompt_tokens_reused == 0
    other = await mesh.agent(OTHER)
    await mesh.knows(other, HOLDER)
    answerers: set[str] = set()

    async def eve_asks(number: int) -> None:
        answerers.add(await mesh.answered(f"eve{number}=first", SECOND))

    await until(lambda: OTHER in answerers, eve_asks)
    assert mesh.said(OfferTask) == []


async def test_an_agent_that_is_gone_costs_the_short_wait(mesh: Mesh) -> None:
    """Its lease still stands, as that of one that was killed, or that stands still."""
    await gone(mesh)
    other = await mesh.agent(OTHER)
    handing_over = await mesh.knows(other, NOBODY, block_s=QUICK_BLOCK_S)
    started_s = time.monotonic()
    assert await mesh.answered("r1", SECOND) == OTHER
    assert time.monotonic() - started_s > mesh.said(OfferTask)[0].wait_s
    assert not handing_over._offered
    await eventually(lambda: queue_is_empty(mesh.client))
    pulled = [one for one in await events(mesh.client) if isinstance(one, TaskPulled)]
    assert [one.delivery for one in pulled if one.request_id == "r1"] == [1]


async def test_a_task_that_was_claimed_by_one_that_dies_is_done_by_another(mesh: Mesh) -> None:
    """It is redelivered as any that somebody had in hand, and offered to nobody."""
    mesh.model = "epsilon"
    await impatient_model(mesh.client, mesh.model)
    given: list[Msg] = []

    async def claim(msg: Msg) -> None:
        offer = PREFIX_SIGNAL.validate_json(msg.data)
        assert isinstance(offer, OfferTask)
        where = subjects.prefix_signal(offer.instance)
        given.append(await mesh.client.request(where, ClaimTask(offer=offer.offer).to_bytes(), timeout=60))

    await mesh.client.subscribe(subjects.prefix_signal(NOBODY), cb=claim)
    await gone(mesh)
    await mesh.knows(await mesh.agent(OTHER), NOBODY)
    assert await mesh.answered("r1", SECOND) == OTHER
    assert Generate.model_validate_json(given[0].data).request_id == "r1"
    assert len(mesh.said(OfferTask)) == 1


@pytest.mark.soak
async def test_a_holder_that_stands_still_costs_the_short_wait_and_doubles_nothing_when_it_wakes(
    mesh: Mesh, mesh_url: str, spawn_service: SpawnService
) -> None:
    """Its lease lives on for a while, and so do its places at the broker: what is given there comes again."""
    mesh.model = "epsilon"
    await impatient_model(mesh.client, mesh.model)
    section = mesh.section(HOLDER)
    holder = spawn_service("agent", HOLDER, url=mesh_url, agent=section)
    await holder.wait_ready(mesh.client)
    assert await mesh.answered("first", FIRST) == HOLDER
    other = await mesh.agent(OTHER)
    await mesh.knows(other, HOLDER, block_s=QUICK_BLOCK_S)
    # When the process stands still that keeps the conversation
    holder.pause()
    asked = [f"r{number}" for number in range(MORE_THAN_ITS_PLACES)]
    for request_id in asked:
        await mesh.ask(request_id, SECOND)
    # Then another one does all of it
    assert {answerer(await mesh.result(request_id)) for request_id in asked} == {OTHER}
    offers = {offer.offer for offer in mesh.said(OfferTask)}
    assert offers
    # And when it wakes, and claims what it was offered, nothing is done a second time
    holder.resume()
    await eventually(lambda: {claim.offer for claim in mesh.said(ClaimTask)} >= offers)
    await eventually(lambda: queue_is_empty(mesh.client))
    assert await mesh.answered("after", THIRD) in {HOLDER, OTHER}
    await holder.stop()  # it says all that it has to say
    done = [one for one in await events(mesh.client) if isinstance(one, TaskCompleted)]
    assert Counter(one.request_id for one in done) == Counter([*asked, "first", "after"])


async def test_an_offer_is_given_once(mesh: Mesh) -> None:
    replies: list[bytes] = []

    async def claim_twice(msg: Msg) -> None:
        offer = PREFIX_SIGNAL.validate_json(msg.data)
        assert isinstance(offer, OfferTask)
        where, payload = subjects.prefix_signal(offer.instance), ClaimTask(offer=offer.offer).to_bytes()
        for _ in range(2):
            reply = await mesh.client.request(where, payload, timeout=60)
            replies.append(reply.data)
            if reply.data:
                await mesh.client.publish((reply.headers or {})[subjects.HANDED_HEADER], Msg.Ack.Term)

    await mesh.client.subscribe(subjects.prefix_signal(NOBODY), cb=claim_twice)
    await gone(mesh)
    await mesh.knows(await mesh.agent(OTHER), NOBODY)
    await mesh.ask("r1", SECOND)
    await eventually(lambda: len(replies) == 2)
    assert replies[0] and not replies[1]


async def test_an_agent_that_does_not_keep_it_any_more_says_so_at_once(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await mesh.agent(HOLDER)
    assert await mesh.answered("first", FIRST) == HOLDER
    other = await mesh.agent(OTHER)
    await mesh.knows(other, HOLDER)
    told = handing_over_of(holder).told(mesh.model)
    monkeypatch.setattr(handing_over_of(holder), "told", lambda _model: told)
    handing_over_of(holder)._models[mesh.model].kept = lambda _idle: ()
    answerers: set[str] = set()

    async def second_turn(number: int) -> None:
        answerers.add(await mesh.answered(f"r{number}", SECOND))

    await until(lambda: OTHER in answerers, second_turn)
    assert mesh.said(DeclineTask)


async def test_a_full_agent_has_it_when_a_slot_falls_free_in_time(mesh: Mesh) -> None:
    holder = await mesh.agent(HOLDER, slots=1)
    assert await mesh.answered("first", FIRST) == HOLDER
    slow_down(holder, mesh.model)
    await mesh.ask("long", SECOND, sampling=ENDLESS)
    await eventually(lambda: holder.load().busy)
    await mesh.knows(await mesh.agent(OTHER), HOLDER)
    await mesh.ask("r1", SECOND)
    await eventually(lambda: mesh.said(OfferTask))
    await mesh.client.publish(subjects.cancel_signal("long"))
    assert answerer(await mesh.result("r1")) == HOLDER


async def test_nobody_starves_while_the_agent_that_is_waited_for_is_full(mesh: Mesh) -> None:
    holder = await mesh.agent(HOLDER, slots=1)
    assert await mesh.answered("first", FIRST) == HOLDER
    slow_down(holder, mesh.model)
    await mesh.ask("long", SECOND, sampling=ENDLESS)
    await eventually(lambda: holder.load().busy)
    other = await mesh.agent(OTHER)
    await mesh.knows(other, HOLDER, block_s=QUICK_BLOCK_S)
    for number in range(4):
        await mesh.ask(f"r{number}", SECOND, priority="batch" if number % 2 else "interactive")
    answerers = [answerer(await mesh.result(f"r{number}")) for number in range(4)]
    assert OTHER in answerers
    await mesh.client.publish(subjects.cancel_signal("long"))


async def test_with_a_wait_of_nothing_nobody_is_told_what_is_kept(mesh: Mesh) -> None:
    holder = await mesh.agent(HOLDER, prefix_wait=0)
    assert await mesh.answered("first", FIRST) == HOLDER
    assert holder.load().models[0].prefixes == ()
    assert mesh.heard == []


async def test_an_agent_that_stops_gives_its_offers_up_and_finishes_what_it_has(mesh: Mesh) -> None:
    await gone(mesh)
    async with mesh.working(OTHER) as agent:
        await mesh.knows(agent, NOBODY)
        await mesh.ask("r1", SECOND)
        await eventually(lambda: mesh.said(OfferTask))
    assert answerer(await mesh.result("r1")) == OTHER


async def gone(mesh: Mesh) -> None:
    """A lease that says that somebody keeps the conversation, and nobody behind it."""
    async with mesh.working(HOLDER) as agent:
        assert await mesh.answered("first", FIRST) == HOLDER
        load = agent.load()
        assert load.models[0].prefixes
    ghost = open_mesh(mesh.client, "agent", NOBODY)
    lease = Lease(ghost.client, ghost.identity, lambda: load)
    await lease.start()
    mesh._stack.push_async_callback(lease.stop)
