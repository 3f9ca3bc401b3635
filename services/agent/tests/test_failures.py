"""A model whose inference thread dies or hangs: its agent says so and ends, and another one answers."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import enqueue, eventually, generate, open_mesh, queue_is_empty, settled
from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.commands import ChatMessage
from schemas.nodes.lease import NodeLease
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.agent.backends.llama_cpp import LlamaCpp, open_backend
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.chassis.context import ServiceContext
from services.engine import Chat, Message
from services.engine.model.chat.format import PreparedChat
from services.engine.sequence.prompt import chat_of

SHORT = Sampling(max_tokens=4)
FAULTY = (sys.executable, "-m", "services.agent.tests.servers.faulty_agent")


def section(path: Path, **model: object) -> AgentSection:
    own = {"name": "alpha", "path": path, "slots": 2, "context_tokens": 256, **model}
    return AgentSection.model_validate({"name": "singer", "models": [own], "threads": 1})


async def result_of(mesh: ServiceContext, request_id: str) -> Result | None:
    stored = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
    return None if stored is None else Result.model_validate_json(stored.data)


def backend_of(agent: Agent) -> LlamaCpp:
    backend = agent._serving[0].backend
    assert isinstance(backend, LlamaCpp)
    return backend


def exited(process: ServiceProcess) -> bool:
    return process.process.poll() is not None


async def heard_leases(connection: Client) -> list[NodeLease]:
    """Every lease that is put from now on, also those that are gone soon."""
    heard: list[NodeLease] = []

    async def hear(msg: Msg) -> None:
        if msg.data:
            heard.append(NodeLease.model_validate_json(msg.data))

    await connection.subscribe(subjects.bucket_updates(subjects.NODES_BUCKET), cb=hear)
    await settled(connection)
    return heard


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("raises", "OSError: llama.cpp is not what it was"), ("hangs", "longer than 1 s (step_limit_s)")],
)
async def test_an_agent_whose_inference_fails_says_why_and_ends_and_another_one_answers(
    fault: str, reason: str, connection: Client, mesh_url: str, model_path: Path, spawn_service: SpawnService
) -> None:
    mesh, leases = open_mesh(connection), await heard_leases(connection)
    sound = section(model_path)
    hasty = section(model_path, step_limit_s=1.0) if fault == "hangs" else sound
    own, said = hasty.model_dump(mode="json"), {"FAULT": fault}
    faulty = spawn_service("agent", "faulty", agent=own, env=said, command=FAULTY)
    await eventually(lambda: any(lease.state == "ready" for lease in leases))

    await enqueue(mesh, generate("r1", sampling=SHORT))
    await eventually(lambda: exited(faulty))
    assert faulty.process.returncode == 1
    broken = [lease for lease in leases if lease.state == "broken"]
    assert broken and broken[-1].problem is not None
    assert reason in broken[-1].problem.message
    assert await result_of(mesh, "r1") is None

    spawn_service("agent", "sound", agent=sound.model_dump(mode="json"))
    result = await eventually(lambda: result_of(mesh, "r1"))
    assert result.error is None
    assert result.answers[0].instance == "sound"


async def test_what_a_broken_model_has_goes_back_and_nothing_more_is_pulled(
    connection: Client, model_path: Path
) -> None:
    mesh = open_mesh(connection)
    broken_mesh = open_mesh(connection, "agent", "broken")
    broken = Agent(section(model_path))
    await broken.start(broken_mesh)
    try:
        engine = backend_of(broken)._engine
        engine._context.decode = dying  # type: ignore[method-assign,assignment]
        for number in range(5):
            await enqueue(mesh, generate(f"r{number}", sampling=SHORT))
        failure = await eventually(lambda: broken_mesh.loops.failure)
        (model,) = broken.load().models
        assert model.problem is not None and model.problem.message in failure
        assert (broken.load().state, model.slots) == ("broken", 0)

        sound = Agent(section(model_path))
        await sound.start(open_mesh(connection, "agent", "sound"))
        try:
            await eventually(lambda: queue_is_empty(connection))
        finally:
            await sound.stop()
    finally:
        await broken.stop()
    for number in range(5):
        result = await result_of(mesh, f"r{number}")
        assert result is not None and result.answers[0].instance == "sound"


def dying(_batch: object) -> int:
    raise OSError("llama.cpp is not what it was")


# --- long steps, and prompts that are long in being made ready -----------------------------------------


class Held:
    """Something of the engine that waits, when it is called, until the test lets it go."""

    def __init__(self, inner: Callable[..., object]) -> None:
        self._inner = inner
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, *arguments: object) -> object:
        self.reached.set()
        assert self.let_go.wait(60)
        return self._inner(*arguments)


async def test_a_template_that_takes_long_stops_no_heartbeats(connection: Client, model_path: Path) -> None:
    mesh, agent = open_mesh(connection), Agent(section(model_path))
    heartbeats = await connection.subscribe(f"$JS.ACK.{subjects.COMMANDS_STREAM}.>")
    await agent.start(open_mesh(connection, "agent", "agent-1"))
    try:
        chats = backend_of(agent)._engine._chats
        chats.prepare = held = Held(chats.prepare)  # type: ignore[method-assign,assignment]
        await enqueue(mesh, generate("r1", sampling=SHORT))
        await eventually(held.reached.is_set)
        assert (await heartbeats.next_msg(60)).data == b"+WPI"
        assert await result_of(mesh, "r1") is None
        held.let_go.set()
        assert await eventually(lambda: result_of(mesh, "r1"))
    finally:
        await agent.stop()


async def test_prompts_are_generated_in_the_order_in_which_they_came(model_path: Path) -> None:
    backend = await opened(model_path, slots=1)
    try:
        chats, order = backend._engine._chats, list[str]()
        inner = chats.prepare

        def prepare(prompt: Chat | Sequence[Message], sampling: Sampling) -> PreparedChat:
            order.append(chat_of(prompt).messages[0].content)
            return inner(prompt, sampling)

        chats.prepare = prepare  # type: ignore[method-assign]
        texts = [f"prompt {number}" for number in range(20)]
        await asyncio.gather(*(backend.generate(messages_of(text), SHORT, None) for text in texts))
        assert order == texts
    finally:
        await backend.close()


async def test_a_request_that_is_cancelled_in_a_long_step_ends_when_its_slot_is_free(
    model_path: Path,
) -> None:
    backend = await opened(model_path, slots=1)
    try:
        engine = backend._engine
        engine._context.decode = held = Held(engine._context.decode)  # type: ignore[method-assign,assignment]
        work = asyncio.create_task(backend.generate(messages_of("hello"), SHORT, None))
        await eventually(held.reached.is_set)
        work.cancel()
        await asyncio.wait([work], timeout=0.2)
        assert not work.done()
        assert backend.step_s() > 0
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert engine.stats().active == 0
    finally:
        await backend.close()


async def test_a_prompt_that_is_cancelled_before_it_is_ready_is_not_generated(model_path: Path) -> None:
    backend = await opened(model_path, slots=1)
    try:
        chats = backend._engine._chats
        chats.prepare = held = Held(chats.prepare)  # type: ignore[method-assign,assignment]
        work = asyncio.create_task(backend.generate(messages_of("hello"), Sampling(max_tokens=200), None))
        await eventually(held.reached.is_set)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        held.let_go.set()
        await backend.generate(messages_of("other"), SHORT, None)
        assert backend._engine.stats().generated_tokens < 200
    finally:
        await backend.close()


async def test_while_a_step_is_long_nothing_is_pulled_and_no_slot_is_called_free(
    connection: Client, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.serving.STEP_PATIENCE_S", 0.1)
    mesh, agent = open_mesh(connection), Agent(section(model_path))
    await agent.start(open_mesh(connection, "agent", "agent-1"))
    try:
        context = backend_of(agent)._engine._context
        context.decode = held = Held(context.decode)  # type: ignore[method-assign,assignment]
        await enqueue(mesh, generate("r1", sampling=SHORT))
        await eventually(held.reached.is_set)
        await eventually(lambda: agent.load().busy == 2)
        await enqueue(mesh, generate("r2", sampling=SHORT))
        await settled(connection)
        loop = agent._serving[0].loop
        assert loop is not None and loop.busy == 1
        held.let_go.set()
        await eventually(lambda: queue_is_empty(connection))
        await eventually(lambda: agent.load().busy == 0)
    finally:
        await agent.stop()


async def opened(path: Path, *, slots: int) -> LlamaCpp:
    backend = await open_backend(section(path, slots=slots).models[0], 1)
    assert isinstance(backend, LlamaCpp)
    return backend


def messages_of(text: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role="user", content=text),)
