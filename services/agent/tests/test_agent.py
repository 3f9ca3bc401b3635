"""An agent on a real broker: every task answered once, whatever its models are like."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.streams.definitions import consumer_config
from infra.demo_models.bench_model import write_bench_model
from infra.testing.mesh import (
    bodies,
    enqueue,
    events,
    eventually,
    finished,
    generate,
    open_mesh,
    queue_is_empty,
    queued,
    settled,
)
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.broker.catalog import model_consumers
from schemas.commands import ChatMessage, CountTokens
from schemas.events import AnyEvent, Event, RequestCompleted, TaskCompleted, TaskPulled, TaskRetried
from schemas.replies import Answer, ErrorReply, Result, TokenChunk, TokenCount
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import Generated
from services.agent.backends.instant import Instant
from services.agent.file_hash import FileHash
from services.agent.service import Agent
from services.agent.settings import AgentSection, ModelSection
from services.chassis.context import ServiceContext

SLOW_MS = 60_000.0


def instant(name: str = "alpha", **model: Any) -> AgentSection:
    models = [{"name": name, "reply": "the tall giraffe", "slots": 2} | model]
    return AgentSection.model_validate({"name": "singer", "backend": "instant", "models": models})


@asynccontextmanager
async def serving(client: Client, section: AgentSection, instance: str = "agent-1") -> AsyncIterator[Agent]:
    """An agent that works for as long as the context is open."""
    agent = Agent(section)
    await agent.start(open_mesh(client, "agent", instance))
    await settled(client)
    try:
        yield agent
    finally:
        await agent.stop()


async def last(mesh: ServiceContext, stream: str, subject: str) -> bytes | None:
    stored = await mesh.storage.last(stream, subject)
    return None if stored is None else stored.data


async def result_of(mesh: ServiceContext, request_id: str) -> Result | None:
    data = await last(mesh, subjects.RESULTS_STREAM, subjects.result(request_id))
    return None if data is None else Result.model_validate_json(data)


async def answer_of(mesh: ServiceContext, request_id: str, agent: str = "alpha") -> Answer | None:
    data = await last(mesh, subjects.ANSWERS_STREAM, subjects.answer(request_id, 1, agent))
    return None if data is None else Answer.model_validate_json(data)


async def test_the_answer_of_a_task_without_a_slip_is_the_request_s_result(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    result = await result_of(mesh, "r1")
    assert result is not None
    assert (result.text, result.topology, result.fingerprint) == ("the tall giraffe", "single", "f")
    (answer,) = result.answers
    assert (answer.agent, answer.instance, answer.finish_reason) == ("alpha", "agent-1", "stop")
    assert answer.generated_tokens == 3
    assert answer.timings.total_duration_ns > 0
    assert await answer_of(mesh, "r1") is None


async def test_the_answer_of_a_member_is_an_answer_and_no_result(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r1", routing_slip=("aggregator",)))
        await eventually(lambda: queue_is_empty(connection))
    answer = await answer_of(mesh, "r1")
    assert answer is not None and answer.text == "the tall giraffe"
    assert await result_of(mesh, "r1") is None


async def test_what_happens_to_a_task_is_told(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r1"))

        async def all_three() -> bool:
            return len(await events(connection)) == 3

        await eventually(all_three)
    pulled, ended, completed = await events(connection)
    assert isinstance(pulled, TaskPulled) and isinstance(completed, TaskCompleted)
    assert isinstance(ended, RequestCompleted)
    assert (ended.answered, ended.generated_tokens) == (1, 3)
    assert (pulled.task_id, pulled.delivery) == (completed.task_id, 1) == ("r1.1.alpha", 1)
    assert (completed.generated_tokens, completed.finish_reason) == (3, "stop")
    assert pulled.queue_duration_ns >= 0


async def test_a_streamed_answer_comes_in_pieces_that_are_kept(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r1", stream=True))
        await eventually(lambda: queue_is_empty(connection))
    chunks = [
        TokenChunk.model_validate_json(body) for body in await bodies(connection, subjects.TOKENS_STREAM)
    ]
    result = await result_of(mesh, "r1")
    assert result is not None
    assert "".join(chunk.text for chunk in chunks) == result.text
    assert [chunk.index for chunk in chunks] == list(range(result.answers[0].chunks))
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_without_anybody_who_listens_nothing_is_streamed(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert await bodies(connection, subjects.TOKENS_STREAM) == []


@pytest.mark.parametrize("slip", [pytest.param((), marks=pytest.mark.soak), ("aggregator",)])
async def test_what_is_answered_already_is_not_generated_again(
    slip: tuple[str, ...], connection: Client
) -> None:
    """The task was in the queue before the agent came, so somebody may have done it."""
    mesh = open_mesh(connection)
    answer = Answer(
        request_id="r1", agent="alpha", model="alpha", instance="another", text="done", finish_reason="stop"
    )
    reply = answer if slip else finished("r1", answers=(answer,))
    subject = subjects.answer("r1", 1, "alpha") if slip else subjects.result("r1")
    await mesh.storage.store_once(subject, reply.to_bytes())
    await enqueue(mesh, generate("r1", routing_slip=slip))
    async with serving(connection, instant(delay_ms=SLOW_MS)):
        await eventually(lambda: queue_is_empty(connection))
    stream = subjects.ANSWERS_STREAM if slip else subjects.RESULTS_STREAM
    assert await bodies(connection, stream) == [reply.to_bytes()]
    assert not any(isinstance(event, TaskPulled | TaskRetried) for event in await events(connection))


async def test_a_member_is_not_asked_any_more_when_the_request_has_its_result(connection: Client) -> None:
    mesh = open_mesh(connection)
    await mesh.storage.store_once(subjects.result("r1"), finished("r1").to_bytes())
    await enqueue(mesh, generate("r1", routing_slip=("aggregator",)))
    async with serving(connection, instant(delay_ms=SLOW_MS)):
        await eventually(lambda: queue_is_empty(connection))
    assert await answer_of(mesh, "r1") is None


async def test_of_two_agents_at_the_same_task_the_first_one_s_answer_stays(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, stored, say = open_mesh(connection), asyncio.Event(), Instant.generate

    async def say_later(self: Instant, *arguments: Any) -> Generated:
        await stored.wait()
        return await say(self, *arguments)

    monkeypatch.setattr(Instant, "generate", say_later)
    pulled = await connection.subscribe(subjects.event("agent", "task_pulled"))
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r1"))
        await pulled.next_msg(60)
        await mesh.storage.store_once(subjects.result("r1"), b"the first")
        stored.set()
        await eventually(lambda: queue_is_empty(connection))
    assert await bodies(connection, subjects.RESULTS_STREAM) == [b"the first"]


async def test_a_cancelled_request_is_dropped_while_it_is_generated(connection: Client) -> None:
    mesh = open_mesh(connection)
    pulled = await connection.subscribe(subjects.event("agent", "task_pulled"))
    async with serving(connection, instant(delay_ms=SLOW_MS, slots=1)) as agent:
        await enqueue(mesh, generate("r1", timeout_s=600))
        await pulled.next_msg(60)
        assert agent.load().busy == 1
        await connection.publish(subjects.cancel_signal("other"))
        await connection.publish(subjects.cancel_signal("r1"))
        await eventually(lambda: queue_is_empty(connection))
        await eventually(lambda: agent.load().busy == 0)
    assert await result_of(mesh, "r1") is None  # whoever cancels stores the result


async def test_a_request_that_was_cancelled_before_its_turn_is_not_begun(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant(delay_ms=SLOW_MS)):
        await connection.publish(subjects.cancel_signal("r1"))
        await connection.flush()
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert await events(connection) == []


async def ask_count(connection: Client, text: str, model: str = "alpha") -> bytes:
    question = CountTokens(messages=(ChatMessage(role="user", content=text),))
    return (await connection.request(subjects.count_tokens(model), question.to_bytes(), timeout=60)).data


async def test_it_counts_prompts_for_whoever_asks(connection: Client) -> None:
    async with serving(connection, instant(context_tokens=100)):
        count = TokenCount.model_validate_json(await ask_count(connection, "one two three"))
        refused = await connection.request(subjects.count_tokens("alpha"), b"{}", timeout=60)
    assert (count.prompt_tokens, count.context_tokens) == (3, 100)
    assert ErrorReply.model_validate_json(refused.data).error.field == "messages"


async def test_its_load_says_what_it_serves_and_how_busy_it_is(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with serving(connection, instant(delay_ms=SLOW_MS, context_tokens=100)) as agent:
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: agent.load().busy == 1)
        load = agent.load()
        await connection.publish(subjects.cancel_signal("r1"))
    assert (load.state, load.slots) == ("ready", 2)
    (model,) = load.models
    assert (model.name, model.backend, model.slots, model.busy) == ("alpha", "instant", 2, 1)
    assert model.context_tokens == 100


# --- models from files ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench_model(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=2, width=64)


def from_files(**paths: Path) -> AgentSection:
    models = [{"name": name, "path": path, "slots": 2, "context_tokens": 256} for name, path in paths.items()]
    return AgentSection(name="singer", backend="llama_cpp", models=models, threads=1)


async def test_a_broken_model_is_said_in_the_lease_and_the_others_go_on(
    connection: Client, model_path: Path, tmp_path: Path
) -> None:
    whole = model_path.read_bytes()
    (truncated := tmp_path / "truncated.gguf").write_bytes(whole[: len(whole) // 2])
    (odd := tmp_path / "odd.gguf").write_bytes(b"not a model at all")
    mesh = open_mesh(connection)
    async with serving(connection, from_files(alpha=model_path, beta=truncated, gamma=odd)) as agent:
        await enqueue(mesh, generate("r1", "alpha", sampling=Sampling(max_tokens=4)))
        await enqueue(mesh, generate("r2", "beta"))
        await eventually(lambda: result_of(mesh, "r1"))
        load = agent.load()

        async def one_is_left() -> (
            bool
        ):  # nobody pulls what cannot be answered: it is there for another agent
            return await queued(connection) == 1

        await eventually(one_is_left)
    assert load.state == "ready"
    assert load.slots == 2
    problems = {model.name: model.problem for model in load.models}
    assert problems["alpha"] is None
    for name, file in (("beta", "truncated.gguf"), ("gamma", "odd.gguf")):
        problem = problems[name]
        assert problem is not None and problem.code == "model_unusable"
        assert file in problem.message


async def test_the_lease_says_of_which_file_a_model_is(connection: Client, model_path: Path) -> None:
    async with serving(connection, from_files(alpha=model_path)) as agent:
        (model,) = agent.load().models
    size_bytes = model_path.stat().st_size
    assert (model.file, model.size_bytes, model.quantisation) == ("tiny.gguf", size_bytes, "Q8_0")


async def test_an_answer_says_the_hash_of_the_file_that_it_came_from(
    connection: Client, model_path: Path
) -> None:
    wanted = hashlib.sha256(model_path.read_bytes()).hexdigest()
    mesh = open_mesh(connection)
    async with serving(connection, from_files(alpha=model_path)):
        await enqueue(mesh, generate("r1", "alpha"))
        result = await eventually(lambda: result_of(mesh, "r1"))
    assert [answer.model_sha256 for answer in result.answers] == [wanted]
    async with serving(connection, instant("beta")):
        await enqueue(mesh, generate("r2", "beta"))
        result = await eventually(lambda: result_of(mesh, "r2"))
    assert [answer.model_sha256 for answer in result.answers] == [None]


async def test_a_large_file_is_hashed_while_its_model_answers(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.file_hash.AT_ONCE_BYTES", 0)
    large = FileHash(ModelSection(name="alpha", path=model_path))
    await large.read()
    await eventually(lambda: large.sha256 == hashlib.sha256(model_path.read_bytes()).hexdigest())
    gone = FileHash(ModelSection(name="alpha", path=tmp_path / "gone.gguf"))
    await gone.read()
    assert gone.sha256 is None


async def test_an_agent_without_a_single_usable_model_is_broken(connection: Client, tmp_path: Path) -> None:
    async with serving(connection, from_files(alpha=tmp_path / "missing.gguf")) as agent:
        load = agent.load()
    assert (load.state, load.slots) == ("broken", 0)
    assert load.problem is not None and "missing.gguf" in load.problem.message


async def test_a_prompt_over_the_context_ends_as_that_error_at_the_first_try(
    connection: Client, model_path: Path
) -> None:
    mesh = open_mesh(connection)
    long = (ChatMessage(role="user", content="hi " * 600),)
    async with serving(connection, from_files(alpha=model_path)):
        await enqueue(mesh, generate("r1", messages=long))
        await enqueue(mesh, generate("r2", messages=long, routing_slip=("aggregator",)))
        await eventually(lambda: queue_is_empty(connection))
    result, answer = await result_of(mesh, "r1"), await answer_of(mesh, "r2")
    assert result is not None and result.error is not None
    assert answer is not None and answer.error is not None
    assert result.error.code == answer.error.code == "context_exceeded"
    assert answer.finish_reason == "error"


async def test_every_task_of_many_is_answered_once(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with (
        serving(connection, instant(slots=3), "agent-1"),
        serving(connection, instant(slots=2), "agent-2"),
    ):
        await asyncio.gather(
            *(
                enqueue(mesh, generate(f"r{i}", priority="batch" if i % 2 else "interactive"))
                for i in range(60)
            )
        )
        await eventually(lambda: queue_is_empty(connection))
    results = [Result.model_validate_json(body) for body in await bodies(connection, subjects.RESULTS_STREAM)]
    assert sorted(result.request_id for result in results) == sorted(f"r{i}" for i in range(60))
    assert all(result.error is None for result in results)


async def test_what_a_killed_agent_stored_and_did_not_tell_is_told_by_whoever_finds_it(
    connection: Client, spawn_service: SpawnService
) -> None:
    # Given an agent that is killed the moment its result is stored, when its events are still noted down
    await impatient(connection, "alpha")
    first = spawn_service("agent", "agent-1", agent=SINGER)
    await first.wait_ready(connection, 180)

    async def kill(_msg: Msg) -> None:
        first.kill()

    await connection.subscribe(subjects.ALL_STORED_RESULTS, cb=kill)
    await settled(connection)
    mesh = open_mesh(connection)
    await enqueue(mesh, generate("r1"))
    await eventually(lambda: not first.alive)
    # When another one gets the task
    second = spawn_service("agent", "agent-2", agent=SINGER)
    await second.wait_ready(connection, 180)
    await eventually(lambda: queue_is_empty(connection))

    # Then it is told once, in the name of the one that did it
    async def both() -> list[TaskCompleted | RequestCompleted] | None:
        told = [e for e in await events(connection) if isinstance(e, TaskCompleted | RequestCompleted)]
        return told if len(told) == 2 else None

    task, request = sorted(await eventually(both), key=lambda event: event.kind, reverse=True)
    assert (task.request_id, task.task_id, task.instance) == ("r1", "r1.1.alpha", "agent-1")
    assert isinstance(request, RequestCompleted) and (request.request_id, request.error) == ("r1", None)


async def test_an_outcome_that_is_found_again_and_again_is_told_once(connection: Client) -> None:
    async with serving(connection, instant()):
        mesh = open_mesh(connection, "agent", "other")
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
        for number in range(3):  # a broker that crashed brings back what was acknowledged
            subject, body = subjects.generate("interactive", "alpha", "r1"), generate("r1").to_bytes()
            await mesh.storage.enqueue(subject, body, message_id=f"again-{number}")
            await eventually(lambda: queue_is_empty(connection))
        await eventually(lambda: told_of(connection, RequestCompleted))
    assert len(await told_of(connection, RequestCompleted)) == 1
    assert len(await told_of(connection, TaskCompleted)) == 1


async def told_of(client: Client, kind: type[Event]) -> list[AnyEvent]:
    """The events of a kind so far."""
    return [event for event in await events(client) if isinstance(event, kind)]


SINGER = {"name": "singer", "backend": "instant", "models": [{"name": "alpha", "reply": "the giraffe"}]}


async def impatient(client: Client, model: str) -> None:
    """Queues whose commands come again a second after whoever had them has died."""
    for spec in model_consumers(model):
        soon = consumer_config(replace(spec, ack_wait_s=1.0))
        await client.jetstream().add_consumer(subjects.COMMANDS_STREAM, soon)


async def test_a_text_that_is_begun_again_streams_under_a_higher_attempt(connection: Client) -> None:
    mesh = open_mesh(connection)
    await enqueue(mesh, generate("r1", stream=True))
    taker = await connection.jetstream().pull_subscribe_bind(
        subjects.generate_consumer("interactive", "alpha"), subjects.COMMANDS_STREAM
    )
    for _ in range(2):  # two agents that say something, and die
        (message,) = await taker.fetch(1, timeout=60)
        await message.nak()
    await taker.unsubscribe()
    async with serving(connection, instant()):
        await enqueue(mesh, generate("r2", stream=True))
        await eventually(lambda: queue_is_empty(connection))
    chunks = [
        TokenChunk.model_validate_json(body) for body in await bodies(connection, subjects.TOKENS_STREAM)
    ]
    attempts = {chunk.request_id: chunk.attempt for chunk in chunks}
    assert attempts["r2"] == 1
    assert attempts["r1"] > 1
